package tick

import (
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// An owner does what the package comment says. Between any two of its reads and writes
// other things may happen, or it dies.
type owner struct {
	w     *world
	id    int
	pause func() bool // false: it dies
	lag   func() time.Duration
	lost  func() bool                            // whether an answer is lost
	old   func() bool                            // whether it looks at a definition again, or takes the one it knows
	said  func(Cursor, Facts, *Definition, Step) // hears of each step
	log   func(string, ...any)
	rests time.Time // until when there is nothing to do
	seen  int       // world.heard of the last look
}

// serve works until the owner dies or finds that its lease is over.
func (o *owner) serve() {
	for o.pause() && o.w.leader == o.id {
		d := o.w.def
		if !o.pause() {
			return
		}
		c, revision := o.w.load()
		switch {
		case d == nil:
			if !o.close(revision) {
				return
			}
			o.rests, o.seen = o.w.now.Add(time.Second), o.w.heard
			if !o.pause() {
				return
			}
			o.rests = time.Time{}
		case !o.carry(d, c.Doing) || !o.follow(d, c, revision):
			return
		}
	}
}

// close ends what is left of a schedule that was deleted.
func (o *owner) close(revision uint64) bool {
	if !o.pause() {
		return false
	}
	if o.w.def == nil && revision != 0 {
		o.w.forget(revision)
	}
	for _, want := range o.w.wants() {
		if o.w.def == nil {
			o.w.apply(want.ID, 0, machine.Declined{At: o.w.now, Code: machine.SkipChanged, Why: "the schedule was deleted"})
		}
	}
	return true
}

// follow goes on from a cursor until somebody else has written it, or there is another
// definition.
func (o *owner) follow(d *Definition, c Cursor, revision uint64) bool {
	for o.w.leader == o.id {
		if !o.old() && o.w.def != d {
			return true
		}
		o.rests, o.seen = time.Time{}, o.w.heard
		facts, ok := o.look(d, c)
		if !ok {
			return false
		}
		step := d.Advance(c, facts)
		o.said(c, facts, d, step)
		if !step.Changed {
			if o.rests = step.Due; step.Due.IsZero() {
				o.rests = o.w.now.Add(24 * time.Hour)
			}
		}
		if step.Plain && !o.carry(d, step.Acts) {
			return false
		}
		if step.Changed {
			if !o.pause() {
				return false
			}
			if revision, ok = o.w.save(step.Cursor, revision); ok {
				o.w.note(step.Acts, step.Cursor.Since)
			}
			if !ok || o.lost() {
				return o.pause()
			}
			c, _ = o.w.load()
		}
		if !step.Plain && !o.carry(d, step.Acts) {
			return false
		}
		if !step.Changed && !o.pause() {
			return false
		}
	}
	return true
}

// look reads what is to be known.
func (o *owner) look(d *Definition, c Cursor) (f Facts, ok bool) {
	f.Now = o.w.now.Add(-o.lag())
	for _, id := range d.Watch(c) {
		if !o.pause() {
			return f, false
		}
		if s := o.w.jobs[id]; s == nil {
			f.Ended = append(f.Ended, End{ID: id})
		} else if s.job.State.Final() {
			f.Ended = append(f.Ended, End{ID: id, State: s.job.State, At: s.job.Finished})
		}
	}
	if !o.pause() {
		return f, false
	}
	f.Wants = o.w.wants()
	return f, true
}

// carry carries out acts.
func (o *owner) carry(d *Definition, acts []Act) bool {
	for _, a := range acts {
		if !o.pause() || !o.act(d, a) {
			return false
		}
	}
	return true
}

func (o *owner) act(d *Definition, a Act) bool {
	switch a.Do {
	case Make, Wait, Decline:
		o.w.create(d.Job(a, o.w.now))
	case Admit:
		return o.rule(a.ID, machine.Admitted{At: o.w.now})
	case Dismiss:
		return o.rule(a.ID, machine.Declined{At: o.w.now, Code: a.Code, Why: a.Why})
	case Cancel:
		if s := o.w.jobs[a.ID]; s != nil && o.w.apply(a.ID, 0, machine.Stopped{Cause: a.Why, At: o.w.now}) {
			s.ends = o.w.now.Add(min(s.ends.Sub(o.w.now), 3*time.Second))
		}
	}
	return true
}

// rule is store.Admit and store.Decline: the lease is looked at between reading and
// writing, by revision.
func (o *owner) rule(id string, ev machine.Event) bool {
	for s := o.w.jobs[id]; s != nil; {
		revision := s.revision
		if _, err := s.job.Apply(ev); err != nil {
			return true
		}
		if !o.pause() || o.w.leader != o.id || !o.pause() {
			return false
		}
		if o.w.apply(id, revision, ev) {
			return true
		}
	}
	return true
}

// idle reports whether there is nothing to do before time passes.
func (o *owner) idle() bool { return o.rests.After(o.w.now) && o.seen == o.w.heard }
