package oracle_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// A random run of broadcasts and sharded jobs that keep their promises is right,
// whatever is done to nodes; with one wrong added to it, it is not.
func TestRandomBroadcasts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f := drawFamilies(t)
		if said := f.run().Check(); len(said) > 0 {
			t.Fatalf("nothing was wrong, and the judge says %v", said)
		}
		wrong := familyWrongs[rapid.IntRange(0, len(familyWrongs)-1).Draw(t, "wrong")]

		if !wrong.do(f) {
			return // this run has nobody to do it to
		}
		said := f.run().Check()
		if !slices.ContainsFunc(said, func(v oracle.Violation) bool { return slices.Contains(wrong.says, v.Invariant) }) {
			t.Fatalf("%s: %v is not among what the judge says: %v", wrong.name, wrong.says, said)
		}
	})
}

// familyWrongs are what can go wrong, and what is then said, one of them at least.
// One does nothing if there is nobody to do it to.
var familyWrongs = []struct {
	name string
	do   func(f *families) bool
	says []string
}{
	{"a part moved", func(f *families) bool {
		return f.change(f.some(isPart, hasRun), func(p *member) {
			p.starts[0].Process, p.starts[0].Node = "w9#1", "w9"
		})
	}, []string{"I7"}},
	{"a record moved", func(f *families) bool {
		return f.change(f.some(isPart), func(p *member) { p.record.Pin.Node = "w9" })
	}, []string{"I7"}},
	{"a part that was lost ran again", func(f *families) bool {
		return f.change(f.some(isPart, func(p *member) bool { return p.record.State == "lost" }), func(p *member) {
			p.starts = append(p.starts, f.start(p, "w3#2", 7, 99))
			if len(p.starts) == 1 { // it had never started
				p.starts = append([]ledger.Entry{f.start(p, "w3#1", 1, 1)}, p.starts...)
			}
		})
	}, []string{"I7"}},
	{"a part that had ended ran again", func(f *families) bool {
		return f.change(f.some(isPart, func(p *member) bool { return p.record.Pin.Node != "w3" && hasRun(p) }), func(p *member) {
			p.starts = append(p.starts, f.start(p, p.record.Pin.Node+"#1", 20, 99))
		})
	}, []string{"I7", "I8"}},
	{"a part is lost whose node lives", func(f *families) bool {
		return f.change(f.some(isPart, func(p *member) bool { return p.record.Pin.Node == "w1" }), func(p *member) { p.record.State = "lost" })
	}, []string{"I7"}},
	{"a part is left", func(f *families) bool {
		return f.change(f.some(func(p *member) bool { return p.record.Pin.Node != "w3" }), func(p *member) {
			p.record.State, p.record.Finished, p.record.Result, p.starts, p.ends = "pending", time.Time{}, nil, nil, nil
		})
	}, []string{"I4"}},
	{"a broadcast is left", func(f *families) bool {
		f.jobs[0].record.State, f.jobs[0].record.Finished = "waiting", time.Time{}
		return true
	}, []string{"I4"}},
	{"a broadcast ends otherwise", func(f *families) bool {
		r := &f.jobs[0].record
		r.State = map[string]string{"succeeded": "failed", "failed": "succeeded"}[r.State]
		return true
	}, []string{"I7"}},
	{"a broadcast miscounts", func(f *families) bool {
		f.jobs[0].record.Children.Succeeded++
		return true
	}, []string{"I7"}},
	{"a broadcast ends late", func(f *families) bool {
		f.jobs[0].record.Finished = f.jobs[0].record.Finished.Add(50 * time.Second)
		return true
	}, []string{"I7"}},
	{"a node is left out", func(f *families) bool {
		j := f.jobs[0]
		if j.record.Children.Shards {
			return false
		}
		j.parts = slices.DeleteFunc(j.parts, func(p *member) bool { return p.record.Pin.Node == "w1" })
		j.record.Children.Total--
		return true
	}, []string{"I7"}},
	{"a shard is run twice at once", func(f *families) bool {
		return f.change(f.some(isShard, func(p *member) bool { return p.starts[0].Node == "w1" }), func(p *member) {
			e := f.start(p, "w2#1", 0, 99)
			e.At = p.starts[0].At + int64(10*time.Millisecond)
			p.starts = append(p.starts, e)
		})
	}, []string{"I3"}},
	{"the number of shards changes", func(f *families) bool {
		return f.change(f.some(isShard), func(p *member) { p.starts[0].Count++ })
	}, []string{"I7"}},
	{"a shard is there twice", func(f *families) bool {
		return f.change(f.some(isShard, func(p *member) bool { return p.record.Part == "1" }), func(p *member) { p.record.Part = "0" })
	}, []string{"I7"}},
}

func isPart(p *member) bool  { return !p.shard }
func isShard(p *member) bool { return p.shard }
func hasRun(p *member) bool  { return len(p.starts) > 0 }

// families are broadcasts and sharded jobs that are made up, one a minute, and
// what is done to w3 in each of these minutes.
type families struct {
	world
	jobs []*broadcast
}

// broadcast is one of them.
type broadcast struct {
	record oracle.Job
	at     float64
	parts  []*member
}

// member is a part, or a shard.
type member struct {
	record       oracle.Job
	shard        bool
	at           float64 // of its broadcast
	starts, ends []ledger.Entry
}

// drawFamilies makes up some. Of the three workers w3 dies in each, and comes back.
func drawFamilies(t *rapid.T) *families {
	f := &families{world: world{t: t, rev: 100}}
	f.add(ledger.Entry{At: f.at(0), What: ledger.Born, Process: "n1", Role: "server"})
	for _, name := range []string{"w1", "w2", "w3", "s1"} {
		born := ledger.Entry{At: f.at(0), What: ledger.Born, Process: name + "#1", Node: name}
		if name != "s1" {
			born.Queue, born.Count = "work", 50
		}
		f.add(born)
		f.says(name, 1, ledger.Ready)
	}
	n := rapid.IntRange(1, 3).Draw(t, "jobs")
	for at := 0.0; at <= float64(60*n+40); at += 2 {
		f.add(ledger.Entry{At: f.at(at), What: ledger.Owner, Node: "s1", Epoch: 5, Revision: 5 + uint64(at)})
	}
	for i := range n {
		at := float64(30 + 60*i)
		process := fmt.Sprint("w3#", i+1)
		kill := at + float64(rapid.IntRange(-4000, 3000).Draw(t, "kill"))/1000
		f.add(ledger.Entry{At: f.at(kill), What: ledger.Fault, Verb: ledger.Kill9, Process: process, Node: "w3"})
		f.add(ledger.Entry{At: f.at(kill), What: ledger.Gone, Process: process, Node: "w3"})
		f.add(ledger.Entry{At: f.at(at + 10), What: ledger.Born, Process: fmt.Sprint("w3#", i+2), Node: "w3", Queue: "work", Count: 50})
		f.jobs = append(f.jobs, f.broadcast(fmt.Sprint("work.b", i), at, kill, process))
	}
	f.add(ledger.Entry{At: f.at(float64(60*n + 40)), What: ledger.Note})
	return f
}

// broadcast makes one up, in which w3 dies, as that process.
func (f *families) broadcast(id string, at, kill float64, process string) *broadcast {
	b := &broadcast{at: at, record: oracle.Job{ID: id, Created: time.Unix(0, f.at(at)), Children: &oracle.Children{Total: 3}}}
	c := b.record.Children
	c.Shards = rapid.Bool().Draw(f.t, "shards")
	c.OnLost = rapid.SampledFrom([]string{"fail", "wait"}).Draw(f.t, "on lost")
	c.Done = rapid.SampledFrom([]string{"all", "quorum"}).Draw(f.t, "done")
	call := ledger.Entry{Verb: ledger.Submit, Job: id, At: f.at(at), Outcome: ledger.Created}
	if c.Shards {
		call.Count, c.Done = 3, "all"
	}
	f.call(call)
	over := at
	for i, node := range []string{"w1", "w2", "w3"} {
		p := &member{at: at, shard: c.Shards, record: oracle.Job{
			ID: fmt.Sprint(id, "-", node), Created: b.record.Created, Parent: id, Part: node, State: "succeeded",
			Pin: &oracle.Pin{Node: node, Else: c.OnLost},
		}}
		if c.Shards {
			p.record.Part, p.record.Pin.Else = fmt.Sprint(i), "wait"
		}
		end := at + 0.2 + float64(rapid.IntRange(100, 2000).Draw(f.t, "took"))/1000
		if node == "w3" {
			end = f.fate(p, c, kill, end, process)
		} else {
			f.runs(p, node+"#1", at+0.1, end)
		}
		p.record.Finished = time.Unix(0, f.at(end))
		over = max(over, end)
		b.parts = append(b.parts, p)
		if p.record.State == "succeeded" {
			c.Succeeded++
		} else {
			c.Lost++
		}
	}
	b.record.State, b.record.Finished = "succeeded", time.Unix(0, f.at(over+0.1))
	if c.Lost > 0 && c.Done == "all" {
		b.record.State = "failed"
	}
	return b
}

// fate makes up what becomes of the part of w3, which dies at kill, and returns
// when that is over.
func (f *families) fate(p *member, c *oracle.Children, kill, end float64, process string) float64 {
	at := p.at
	if kill > end {
		f.runs(p, process, at+0.1, end)
		return end
	}
	if kill > at+0.1 { // it dies in it
		p.starts = append(p.starts, f.start(p, process, 0.1, 1))
		p.record.Attempt = 1
		p.record.Attempts = []oracle.Attempt{{Number: 1, Node: "w3", Started: time.Unix(0, f.at(at+0.1)), Ended: time.Unix(0, f.at(kill+6)), Outcome: "lost"}}
	}
	switch {
	case c.Shards:
		p.record.Pin.Node = "w2"
		f.runs(p, "w2#1", kill+6.5, kill+7)
		return kill + 7
	case c.OnLost == "wait":
		next := fmt.Sprint("w3#", int(process[3]-'0')+1)
		f.runs(p, next, at+12, at+13)
		return at + 13
	}
	p.record.State = "lost"
	return max(kill+6, at)
}

// runs makes up an attempt that succeeds.
func (f *families) runs(p *member, process string, from, to float64) {
	p.record.Attempt++
	start := f.start(p, process, from-p.at, p.record.Attempt)
	p.starts = append(p.starts, start)
	end := start
	end.What, end.At, end.Outcome = ledger.End, f.at(to)-int64(time.Millisecond), ledger.Succeeded
	p.ends = append(p.ends, end)
	p.record.Result = fmt.Appendf(nil, `{"nonce":%q}`, start.Nonce)
	p.record.Attempts = append(p.record.Attempts, oracle.Attempt{
		Number: start.Attempt, Node: start.Node, Started: time.Unix(0, f.at(from)), Ended: time.Unix(0, f.at(to)), Outcome: "succeeded",
	})
}

// start is the start of a handler, so long after the broadcast.
func (f *families) start(p *member, process string, after float64, attempt int) ledger.Entry {
	f.rev++
	e := ledger.Entry{
		At: f.at(p.at + after), What: ledger.Start, Process: process, Node: process[:2], Job: p.record.ID, Attempt: attempt,
		Fence: f.rev, Nonce: fmt.Sprint(p.record.ID, "/", attempt), Parent: p.record.Parent, Part: p.record.Part,
	}
	if p.shard {
		e.Count = 3
	}
	return e
}

// some returns a member of whom all this holds, or nil.
func (f *families) some(holds ...func(*member) bool) *member {
	for _, j := range f.jobs {
		for _, p := range j.parts {
			if !slices.ContainsFunc(holds, func(h func(*member) bool) bool { return !h(p) }) {
				return p
			}
		}
	}
	return nil
}

// change does something to a member, if there is one.
func (f *families) change(p *member, do func(*member)) bool {
	if p != nil {
		do(p)
	}
	return p != nil
}

// run is all of it.
func (f *families) run() oracle.Run {
	r := oracle.Run{Ledger: slices.Clone(f.entries)}
	for _, j := range f.jobs {
		r.Jobs = append(r.Jobs, j.record)
		for _, p := range j.parts {
			r.Jobs = append(r.Jobs, p.record)
			r.Ledger = append(append(r.Ledger, p.starts...), p.ends...)
		}
	}
	return r
}
