package machine

import (
	"reflect"

	"github.com/google/go-cmp/cmp"
)

// familyLaws hold like laws, for jobs that are for a node or have relatives.
var familyLaws = map[string]func(taken) bool{
	"nobody runs a job that is for another node": func(s taken) bool {
		c, claims := claimantOf(s.event)
		return !claims || s.err != nil || s.before.Pin == nil || s.before.Pin.Node == c.Lease.Node
	},
	"what runs is pinned to whom it runs on": func(s taken) bool {
		return s.after.State != Running || s.after.Pin == nil || s.after.Pin.Node == s.after.Lease.Node
	},
	"a claim and a take-over write the life of the claimant into the pin": func(s taken) bool {
		begins := s.err == nil && s.after.Attempt > s.before.Attempt
		return !begins || s.after.Pin == nil || s.after.Pin.Incarnation == s.after.Lease.Incarnation
	},
	"a pin without a rule keeps its node, or goes if any may have the job": func(s taken) bool {
		if s.before.Pin == nil || s.before.Pin.Rule != nil {
			return true
		}
		if _, placed := s.event.(Placed); placed && s.after.Pin == nil {
			return s.before.Pin.Else == ElseAny && !s.before.State.Final() && s.before.State != Running
		}
		return s.after.Pin != nil && s.after.Pin.Node == s.before.Pin.Node && s.after.Pin.Rule == nil && s.after.Pin.Else == s.before.Pin.Else
	},
	"a pin with a rule keeps it, or goes if any may have the job": func(s taken) bool {
		if s.before.Pin == nil || s.before.Pin.Rule == nil {
			return true
		}
		if _, placed := s.event.(Placed); placed && s.after.Pin == nil {
			return s.before.Pin.Else == ElseAny
		}
		return s.after.Pin != nil && cmp.Equal(s.after.Pin.Rule, s.before.Pin.Rule) && s.after.Pin.Else == s.before.Pin.Else
	},
	"nobody gets a pin that has none": func(s taken) bool { return s.before.Pin != nil || s.after.Pin == nil },
	"only a claim, a ruling, a death and a redrive change a pin": func(s taken) bool {
		if cmp.Equal(s.before.Pin, s.after.Pin) {
			return true
		}
		_, claims := claimantOf(s.event)
		_, placed := s.event.(Placed)
		_, orphaned := s.event.(Orphaned)
		return claims || placed || orphaned || redrives(s.event)
	},
	"a ruling on a place changes nothing else": func(s taken) bool {
		if _, placed := s.event.(Placed); !placed {
			return true
		}
		want := s.before
		want.Pin = s.after.Pin
		return reflect.DeepEqual(want, s.after)
	},
	"a job is lost only if it was to fail without its node": func(s taken) bool {
		if s.after.State != Lost || s.before.State == Lost {
			return true
		}
		p := s.before.Pin
		return p != nil && p.Else == ElseFail && s.after.Error.Code == codeNodeLost && (p.Rule == nil || s.before.State != Running)
	},
	"a job whose only node died while it ran is lost, unless it is to wait": func(s taken) bool {
		j := s.before
		if j.State != Running || j.Cancel != nil || j.Pin == nil || j.Pin.Rule != nil || j.Pin.Else != ElseFail {
			return true
		}
		return s.err != nil || !fails(s.event, j) || errs(s.event) || s.after.State == Lost
	},
	"a job whose node died, and that others may have, has no place": func(s taken) bool {
		if orphaned, ok := s.event.(Orphaned); !ok || orphaned.LostClaim || s.err != nil || s.after.State != Pending {
			return true
		}
		return s.before.Pin == nil || s.before.Pin.Rule == nil || s.after.Homeless()
	},
	"what children are for is said once": func(s taken) bool {
		if s.before.Fan == nil {
			return s.after.Fan == nil
		}
		a, b := *s.after.Fan, *s.before.Fan
		if _, ok := s.event.(Dispatched); ok && s.err == nil {
			a.Shares, a.SharesBlob, a.Total = b.Shares, b.SharesBlob, b.Total
		}
		a.Tally, b.Tally = Tally{}, Tally{}
		return cmp.Equal(a, b)
	},
	"how the children ended is said with the end, until a redrive": func(s taken) bool {
		if s.before.Fan == nil {
			return true
		}
		want := s.before.Fan.Tally
		if c, ok := s.event.(Concluded); ok && s.err == nil {
			want = c.Tally
		}
		if redrives(s.event) && s.err == nil {
			want = Tally{}
		}
		return cmp.Equal(s.after.Fan.Tally, want)
	},
	"a job with children waits for them, or for its time": func(s taken) bool {
		if s.after.Fan == nil {
			return s.after.State != Waiting
		}
		return s.after.State == Waiting || s.after.State == Scheduled || s.after.State.Final()
	},
	"a child that has ended has no timer: it goes with its parent": func(s taken) bool {
		return s.after.Parent == nil || !s.after.State.Final() || s.after.Timers() == nil
	},
}

// errs reports whether an event is an error of the handler.
func errs(ev Event) bool {
	_, ok := ev.(Erred)
	return ok
}

// fails reports whether ev is a failure of j, if it is accepted.
func fails(ev Event, j Job) bool {
	switch ev := ev.(type) {
	case Erred:
		return j.Cancel == nil
	case TakenOver:
		return dies(ev.LostClaim, j)
	case Orphaned:
		return dies(ev.LostClaim, j)
	case Postponed:
		return dies(ev.LostClaim, j) && j.State == Running
	}
	return false
}

// dies reports whether it is a failure of j that its node is gone.
func dies(lostClaim bool, j Job) bool {
	keeps := j.Pin != nil && j.Pin.Rule == nil && j.Pin.Else == ElseWait
	return j.Cancel == nil && !lostClaim && !keeps
}

// dues is how many timers of j are for its due time.
func dues(j Job) int {
	if j.State.Delayed() && j.Wait != WaitTurn {
		return 1
	}
	return 0
}
