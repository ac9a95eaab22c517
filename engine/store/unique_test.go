package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// theKey is where the unique key k1 of kind q.k lies.
var theKey = "unique." + name.Token("q.k") + ".k1"

// unique returns the record of a new job with the unique key k1.
func unique(local string, scope machine.Scope) machine.Job {
	j := job(local)
	j.Unique = &machine.Unique{Key: "k1", Scope: scope}
	if scope == machine.WithinPeriod {
		j.Unique.Until = j.Created.Add(time.Hour)
	}
	return j
}

// holder returns the job that the unique key names, or nothing.
func (w *world) holder() string {
	w.Helper()
	keys := kv.Open(w.pub, ns.Bucket(streams.Cursor), kv.JSON[struct {
		ID string `json:"id"`
	}]())
	entry, err := keys.Get(w.Context(), theKey)
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		w.Fatal(err)
	}
	return entry.Value.ID
}

// submits submits a job and checks which one is there then.
func (p *process) submits(j machine.Job, want string) {
	p.w.Helper()
	entry, created, err := p.Submit(p.w.Context(), j)
	if err != nil || entry.Key != want || created != (want == j.ID) {
		p.w.Errorf("submit %s: there is %s, created %v, %v, want %s", j.ID, entry.Key, created, err, want)
	}
}

// A key is held for as long as its scope says, and then by whoever asks next.
func TestUniqueScope(t *testing.T) {
	for _, test := range []struct {
		scope                                  machine.Scope
		whileRunning, whenEnded, afterTwoHours string // who holds it then
	}{
		{scope: machine.WhilePending, whileRunning: "q.3", whenEnded: "q.3", afterTwoHours: "q.3"},
		{scope: machine.WhileActive, whileRunning: "q.1", whenEnded: "q.4", afterTwoHours: "q.4"},
		{scope: machine.WithinPeriod, whileRunning: "q.1", whenEnded: "q.1", afterTwoHours: "q.5"},
	} {
		t.Run(string(test.scope), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p := w.process("a")
				p.submits(unique("1", test.scope), "q.1")
				p.submits(unique("2", test.scope), "q.1")
				entry, d := p.start("t1")
				p.submits(unique("3", test.scope), test.whileRunning)
				p.finish(entry, "t1", done("t1"), d)
				p.submits(unique("4", test.scope), test.whenEnded)
				time.Sleep(2 * time.Hour)
				p.submits(unique("5", test.scope), test.afterTwoHours)
			})
		})
	}
}

// A key that nobody holds is not stored. A job that was redriven does not take it
// back, and its end does not free it for those who hold it.
func TestUniqueFreed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(unique("1", machine.WhileActive))
		p.runOnce("t1")
		if got := w.holder(); got != "" {
			t.Errorf("%s holds the key", got)
		}
		p.submit(unique("2", machine.WhileActive))
		must(p.Redrive(t.Context(), "q.1"))(t)
		p.submits(unique("3", machine.WhileActive), "q.2")
		must(p.Cancel(t.Context(), "q.1", "enough"))(t)
		p.submits(unique("3", machine.WhileActive), "q.2")
		must(p.Cancel(t.Context(), "q.2", "enough"))(t)
		if got := w.holder(); got != "" {
			t.Errorf("%s holds the key", got)
		}
	})
}

// Who deletes a job within its period frees the key, and a key of another kind is
// another key.
func TestUniqueDeleted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(unique("1", machine.WithinPeriod))
		other := unique("2", machine.WithinPeriod)
		other.Kind = "q.other"
		p.submit(other)
		must(p.Cancel(t.Context(), "q.1", "enough"))(t)
		if err := p.Delete(t.Context(), "q.1"); err != nil {
			t.Fatal(err)
		}
		p.submits(unique("3", machine.WithinPeriod), "q.3")
	})
}

// before are the ways in which a key can be found.
var before = map[string]func(w *world, p *process){
	"there is no key": func(*world, *process) {},
	"its record is not there": func(w *world, p *process) {
		p.submit(unique("old", machine.WhileActive))
		w.remove("q.old")
	},
	"its job has ended": func(w *world, p *process) {
		p.submit(unique("old", machine.WhileActive))
		w.change("q.old", machine.Stopped{Cause: "behind everybody's back", At: time.Now().UTC()})
	},
	"its job is being removed": func(w *world, p *process) {
		p.submit(unique("old", machine.WhileActive))
		w.change("q.old", machine.Stopped{Cause: "behind everybody's back", At: time.Now().UTC()}, machine.Removed{At: time.Now().UTC()})
	},
}

// Whatever write a submitter dies before or after, and whatever answer it does not
// get: the next one finds one job or makes one, that runs once, and then the key is
// free.
func TestUniqueCrash(t *testing.T) {
	for name, prepare := range before {
		for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer} {
			more := true
			for n := 1; more; n++ {
				t.Run(fmt.Sprint(name, ", ", fault, " ", n), func(t *testing.T) {
					bubble(t, func(t *testing.T, w *world) {
						p, q := w.process("a"), w.process("b")
						prepare(w, q)
						p.failNth(n, fault)
						ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
						defer cancel()
						mine, _, err := p.Submit(ctx, unique("mine", machine.WhileActive))
						more = p.pending() == 0
						p.crash()
						theirs, _ := must2(q.Submit(t.Context(), unique("theirs", machine.WhileActive)))(t)
						if err == nil && theirs.Key != mine.Key {
							t.Errorf("there are %s and %s", mine.Key, theirs.Key)
						}
						if got := w.active(); !slices.Equal(got, []string{theirs.Key}) {
							t.Errorf("active are %v, want %s", got, theirs.Key)
						}
						entry, d := q.begin("t1")
						q.finish(entry, "t1", done("t1"), d)
						q.settle()
						if got := w.holder(); entry.Key != theirs.Key || got != "" {
							t.Errorf("%s ran, want %s, and %q holds the key", entry.Key, theirs.Key, got)
						}
					})
				})
			}
		}
	}
}

// Whatever write a worker dies before or after when it ends the job: the key is free
// when others have settled that, and only then.
func TestUniqueFinishCrash(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer} {
		writes := 2 // the record and the key
		if fault == natstest.DownBefore {
			writes++ // and the acknowledgement, which wants no answer
		}
		for n := range writes {
			t.Run(fmt.Sprint(fault, " ", n+1), func(t *testing.T) {
				bubble(t, func(t *testing.T, w *world) {
					w.serve()
					p, q := w.process("a"), w.process("b")
					p.submit(unique("1", machine.WhileActive))
					entry, d := p.start("t1")
					p.failNth(n+1, fault)
					w.meanwhile(func() {
						ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
						defer cancel()
						if _, fate, err := p.Finish(ctx, entry, "t1", done("t1")); err == nil && fate.Acknowledge() {
							_ = d.Ack()
						}
					})()
					p.crash()
					time.Sleep(longGone)
					if ended := w.get("q.1").Value.State.Final(); !ended {
						q.submits(unique("2", machine.WhileActive), "q.1")
						entry, d := q.begin("t2")
						q.finish(entry, "t2", done("t2"), d)
					}
					q.settle()
					if got := w.holder(); got != "" {
						t.Errorf("%s holds the key", got)
					}
					w.want("q.1", machine.Succeeded, w.get("q.1").Value.Attempt, w.get("q.1").Value.Failures)
					q.submits(unique("3", machine.WhileActive), "q.3")
				})
			})
		}
	}
}

// Whoever ended a job and comes late to free its key leaves it to a new life under the
// same ID.
func TestUniqueFreedLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		p.submit(unique("1", machine.WhileActive))
		late := w.change("q.1", machine.Stopped{Cause: "behind everybody's back", At: time.Now().UTC()})
		w.remove("q.1") // its time has passed
		if entry, created, err := p.Submit(t.Context(), unique("2", machine.WhileActive)); entry.Key != "q.1" || !created || err != nil {
			t.Fatalf("submit: there is %s, created %v, %v", entry.Key, created, err)
		}
		if err := p.Owe(t.Context(), late); err != nil {
			t.Error(err)
		}
		p.submits(unique("3", machine.WhileActive), "q.1")
	})
}

// must2 is must for two values.
func must2[A, B any](a A, b B, err error) func(testing.TB) (A, B) {
	return func(t testing.TB) (A, B) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a, b
	}
}

// active returns the jobs that have not ended.
func (w *world) active() (list []string) {
	w.Helper()
	err := w.jobs.Recent(w.Context(), ">", func(entry store.Entry) bool {
		if !entry.Value.State.Final() {
			list = append(list, entry.Key)
		}
		return true
	})
	if err != nil {
		w.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// A submitter that is frozen between the two writes of a submit goes on when its
// job has run and is deleted, and another one holds the key: it attaches to that.
func TestUniqueFrozen(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		t.Run(fmt.Sprint("deleted ", deleted), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p, q := w.process("a"), w.process("b")
				p.fail(jobWrites, natstest.CutBefore) // and it tries again when it is back
				var got store.Entry
				frozen := w.meanwhile(func() {
					time.AfterFunc(time.Millisecond, p.link.Freeze)
					entry, _, err := p.Submit(w.Context(), unique("1", machine.WhileActive))
					if err != nil {
						entry, _, err = p.Submit(w.Context(), unique("1", machine.WhileActive))
					}
					if err != nil {
						t.Error(err)
					}
					got = entry
				})
				time.Sleep(time.Second)
				first, _ := must2(q.Submit(t.Context(), unique("2", machine.WhileActive)))(t)
				entry, d := q.begin("t1")
				q.finish(entry, "t1", done("t1"), d)
				want := first.Key
				if deleted {
					if err := q.Delete(t.Context(), first.Key); err != nil {
						t.Fatal(err)
					}
					second := q.submit(unique("3", machine.WhileActive))
					want = second.Key
				}
				time.Sleep(time.Second)
				p.link.Thaw()
				frozen()
				if active := w.active(); deleted && !slices.Equal(active, []string{want}) || len(active) > 1 {
					t.Errorf("active are %v, want %s", active, want)
				}
				if deleted && got.Key != want {
					t.Errorf("it has %s, want %s", got.Key, want)
				}
			})
		})
	}
}

// life is a job from its first revision to the one with which it ended.
type life struct {
	id         string
	begin, end uint64
	moved      bool // there was more than its creation
}

// audit hears of every revision of every record, in order.
type audit struct {
	mu    sync.Mutex
	last  uint64
	lives []life
	open  map[string]int // the life of an ID that goes on
}

// watch lets the server tell of every record that is stored.
func (w *world) watch() *audit {
	w.Helper()
	stream := must(w.js.Stream(w.Context(), "KV_"+ns.Bucket(streams.Jobs)))(w)
	config := stream.CachedInfo().Config
	config.RePublish = &jetstream.RePublish{Source: "$KV.mr_default_jobs.>", Destination: "audit.>"}
	must(w.js.UpdateStream(w.Context(), config))(w)
	a := &audit{open: map[string]int{}}
	must(w.pub.Conn().Subscribe("audit.>", func(m *nats.Msg) {
		j, err := store.Codec().Decode(m.Header, m.Data)
		seq, _ := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			w.Error(err)
			return
		}
		a.note(j, seq)
	}))(w)
	return a
}

func (a *audit) note(j machine.Job, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = seq
	i, on := a.open[j.ID]
	fresh := j.State == machine.Pending && j.Attempt == 0
	switch {
	case fresh: // the one before was taken back
		a.open[j.ID] = len(a.lives)
		a.lives = append(a.lives, life{id: j.ID, begin: seq})
	case on:
		a.lives[i].moved = true
		if j.State.Final() {
			a.lives[i].end = seq
			delete(a.open, j.ID)
		}
	}
}

// all returns all lives, in order.
func (a *audit) all() []life {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.lives)
}

// now returns the revision of what was told last.
func (a *audit) now() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last
}

// Submitters, workers and somebody who deletes what has ended, over connections that
// break and answers that get lost: there are never two jobs of one key, and whoever
// submits has one that was there meanwhile.
func TestUniqueRace(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a := w.watch()
				type got struct {
					id        string
					call, end uint64
				}
				var mu sync.Mutex
				var results []got
				var submitting, working sync.WaitGroup
				over := make(chan struct{})
				for i, node := range []string{"a", "b", "c"} {
					p, rng := w.process(node), rand.New(rand.NewPCG(seed, uint64(i)))
					p.unlucky(rand.New(rand.NewPCG(seed, uint64(i)+10)))
					submitting.Go(func() {
						for n := range 6 {
							time.Sleep(within(rng, 2*time.Second))
							j, call := unique(node+strconv.Itoa(n), machine.WhileActive), a.now()
							entry, _, err := p.Submit(w.Context(), j)
							for err != nil {
								time.Sleep(time.Second)
								entry, _, err = p.Submit(w.Context(), j)
							}
							mu.Lock()
							results = append(results, got{entry.Key, call, max(a.now(), entry.Revision)}) // what is told may come late
							mu.Unlock()
						}
					})
				}
				for i, node := range []string{"v", "w"} {
					p, rng := w.process(node), rand.New(rand.NewPCG(seed, uint64(i)+20))
					working.Go(func() { p.workUntil(over, rng) })
				}
				submitting.Wait()
				time.Sleep(time.Minute)
				close(over)
				working.Wait()
				there := w.active()
				lives := slices.DeleteFunc(a.all(), func(l life) bool {
					return !l.moved && !slices.Contains(there, l.id) // taken back before anybody saw it
				})
				for i, l := range lives {
					if i > 0 && (lives[i-1].end == 0 || lives[i-1].end > l.begin) {
						t.Errorf("%+v and %+v are there at once", lives[i-1], l)
					}
				}
				for _, r := range results {
					if !slices.ContainsFunc(lives, func(l life) bool { return l.id == r.id && (l.end == 0 || l.end >= r.call) && l.begin <= r.end }) {
						t.Errorf("%+v is none of %+v", r, lives)
					}
				}
				if len(lives) < 3 {
					t.Errorf("there were only %+v", lives)
				}
			})
		})
	}
}

// workUntil runs jobs, and deletes some that have ended.
func (p *process) workUntil(over <-chan struct{}, rng *rand.Rand) {
	for n := 0; ; n++ {
		select {
		case <-over:
			return
		default:
		}
		d := p.takeWithin(time.Second)
		if d == nil {
			continue
		}
		token := fmt.Sprint(p.node.ID(), n)
		entry, ok := p.deliver(d, token)
		if !ok {
			continue
		}
		time.Sleep(within(rng, time.Second))
		p.finish(entry, token, done(token), d)
		if rng.IntN(2) == 0 {
			if err := p.Delete(p.w.Context(), entry.Key); err != nil {
				p.w.Log(err)
			}
		}
	}
}

// A record that lands when its submitter is gone, and its key is another's by then, is
// taken away instead of being offered. One whose job was redriven, or whose period is
// over, stays, and so does one whose key is not there.
func TestUniqueLanded(t *testing.T) {
	for name, test := range map[string]struct {
		scope machine.Scope
		alter func(w *world, j *machine.Job)
		want  []string // what is active then
	}{
		"pending":   {scope: machine.WhileActive, want: []string{"q.2"}},
		"scheduled": {scope: machine.WhilePending, alter: delayed, want: []string{"q.2"}},
		"large":     {scope: machine.WhileActive, alter: stowed, want: []string{"q.2"}},
		"redriven":  {scope: machine.WhileActive, alter: func(_ *world, j *machine.Job) { j.Redriven = j.Created }, want: []string{"q.1", "q.2"}},
		"period":    {scope: machine.WithinPeriod, want: []string{"q.1", "q.2"}},
		"no key":    {scope: machine.WhileActive, alter: func(_ *world, j *machine.Job) { j.Unique.Key = "k2" }, want: []string{"q.1", "q.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				p, late := w.process("a"), unique("1", test.scope)
				p.submits(unique("2", test.scope), "q.2")
				if test.alter != nil {
					test.alter(w, &late)
				}
				must(w.jobs.Create(t.Context(), late.ID, late))(t)
				lacks := must(p.Heal(t.Context(), late.ID))(t)
				if got := w.active(); !slices.Equal(got, test.want) {
					t.Errorf("active are %v, want %v", got, test.want)
				}
				if taken := slices.Equal(lacks, []store.Lack{store.LackRemoval}); taken != (len(test.want) == 1) {
					t.Errorf("it lacked %v", lacks)
				}
				w.wantObjects(0)
			})
		})
	}
}

func delayed(_ *world, j *machine.Job) {
	j.State, j.Due, j.Wait = machine.Scheduled, j.Created.Add(time.Hour), machine.WaitDelay
}

func stowed(w *world, j *machine.Job) {
	j.InputBlob = &machine.Blob{Name: blobs.Name(j.ID, j.Created), Size: 1}
	if err := blobs.Open(w.pub, ns).Put(w.Context(), j.InputBlob.Name, []byte("1")); err != nil {
		w.Fatal(err)
	}
}
