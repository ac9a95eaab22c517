package reconcile_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/reconcile"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/streams"
)

// mixed submits n jobs of each kind that waits for something: pending ones, those
// for soon, those for later, and those with limits.
func (w *world) mixed(n int) []string {
	now := time.Now()
	ids := w.submit(n, "pending", nil)
	later := func(least, most time.Duration) func(*machine.Job) {
		return func(j *machine.Job) {
			j.State = machine.Scheduled
			j.Due = machine.Millisecond(now.Add(least + rand.N(most-least)))
		}
	}
	ids = append(ids, w.submit(n, "soon", later(time.Second, 20*time.Second))...)
	ids = append(ids, w.submit(n, "later", later(time.Minute, 2*time.Minute))...)
	return append(ids, w.submit(n, "limited", func(j *machine.Job) {
		j.Deadline = machine.Millisecond(now.Add(time.Hour + rand.N(time.Hour)))
	})...)
}

// Streams and consumers are destroyed, with or without anybody who runs the jobs.
func TestDamage(t *testing.T) {
	damages := map[string]func(w *world){
		"work purged":   func(w *world) { w.purge(ns.WorkStream()) },
		"timers purged": func(w *world) { w.purge(ns.TimerStream()) },
		"consumer deleted": func(w *world) {
			if err := w.js.DeleteConsumer(w.Context(), ns.WorkStream(), "q"); err != nil {
				w.Fatal(err)
			}
		},
		"all of it": func(w *world) {
			w.purge(ns.WorkStream())
			w.purge(ns.TimerStream())
			if err := w.js.DeleteConsumer(w.Context(), ns.WorkStream(), "q"); err != nil {
				w.Fatal(err)
			}
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(_ *testing.T, w *world) { testDamage(w, damage) })
		})
	}
}

func testDamage(w *world, damage func(*world)) {
	const n = 250
	w.fire()
	w.own("owner")
	if err := w.Work.Serve(w.Context(), "q", streams.Shape{AckWait: lease}); err != nil {
		w.Fatal(err)
	}
	time.Sleep(time.Minute)
	ids := w.mixed(n)
	time.Sleep(15 * time.Second)
	damage(w)
	time.Sleep(soon)
	pending, soon, later, limited := ids[:n], ids[n:2*n], ids[2*n:3*n], ids[3*n:]
	for name, list := range map[string][]string{"pending": pending, "due": soon, "limited": limited} {
		if got := w.items(list...); got != n {
			w.Errorf("%d of %d %s jobs have items", got, n, name)
		}
	}
	timers := w.subjects(ns.TimerStream(), ">")
	if w.Failed() {
		w.Log(len(timers), "timers at", time.Now().Unix()/60, timers)
	}
	for _, id := range append(later, limited...) {
		j := must(w.Get(w.Context(), id))(w).Value
		for _, t := range j.Timers() {
			if timers[ns.TimerSubject(t.At, streams.Purpose(t.Purpose), "q", id[2:])] == 0 {
				w.Errorf("job %s has no timer %s", id, t.Purpose)
			}
		}
	}
	if _, err := w.js.Consumer(w.Context(), ns.WorkStream(), "q"); err != nil {
		w.Errorf("consumer: %v", err)
	}
	w.work("a", succeed(time.Second))
	w.within(10*time.Minute, "all jobs have ended", w.ended(ids, machine.Succeeded))
}

// More is lost than a sample has.
func TestManyLost(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const n = 3000
		o := w.own("owner")
		ids := w.submit(n, "pending", nil)
		w.submit(n, "later", func(j *machine.Job) {
			j.State, j.Due = machine.Scheduled, machine.Millisecond(time.Now().Add(time.Hour))
		})
		time.Sleep(time.Minute)
		w.purge(ns.WorkStream())
		w.purge(ns.TimerStream())
		time.Sleep(soon)
		w.wantHealed(o, lacks{store.LackItem: n, store.LackTimer: n})
		if items, timers := w.items(ids...), len(w.subjects(ns.TimerStream(), ">")); items != n || timers != n {
			t.Errorf("there are %d items and %d timers, want %d of each", items, timers, n)
		}
	})
}

// Two owners at the same time are as good as one.
func TestTwo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		w.own("one")
		w.own("two")
		ids := w.mixed(50)
		time.Sleep(30 * time.Second)
		w.purge(ns.WorkStream())
		w.purge(ns.TimerStream())
		w.work("a", succeed(time.Second))
		w.within(10*time.Minute, "all jobs have ended", w.ended(ids, machine.Succeeded))
		for _, id := range ids {
			if j := must(w.Get(t.Context(), id))(t).Value; j.Attempt != 1 {
				t.Errorf("job %s ran %d times", id, j.Attempt)
			}
		}
	})
}

// The server is away for a while, or comes back at once.
func TestRestart(t *testing.T) {
	for _, away := range []time.Duration{0, time.Second, time.Minute} {
		t.Run(away.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.fire()
				one := w.own("one")
				time.Sleep(time.Minute)
				ids := w.mixed(50)
				time.Sleep(30 * time.Second)
				w.restart(away)
				time.Sleep(10 * time.Second)
				two := w.own("two") // the lease of the first may be over
				w.purge(ns.WorkStream())
				time.Sleep(soon)
				if n := w.items(ids[:100]...); n != 100 {
					t.Errorf("%d of 100 jobs have items", n)
				}
				if n := one.Healed()[store.LackItem] + two.Healed()[store.LackItem]; n < 100 {
					t.Errorf("%d jobs were healed", n)
				}
			})
		})
	}
}

// Somebody purges the jobs, or some of them, and nothing is left to heal.
func TestJobsPurged(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.fire()
		o := w.own("owner")
		ids := w.mixed(50)
		time.Sleep(30 * time.Second)
		for _, id := range ids[:10] {
			entry := must(w.Get(t.Context(), id))(t)
			if err := w.jobs.Delete(t.Context(), id, entry.Revision); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Second)
		w.purge("KV_" + ns.Bucket(streams.Jobs))
		w.purge(ns.WorkStream())
		w.purge(ns.TimerStream())
		time.Sleep(30 * time.Second)
		fresh := w.submit(10, "fresh", nil)
		time.Sleep(11 * time.Minute)
		w.wantHealed(o, lacks{})
		report := must(reconcile.Ask(t.Context(), w.pub, ns))(t)
		if report.Looked != len(fresh) {
			t.Errorf("%d jobs are left, want %d", report.Looked, len(fresh))
		}
	})
}

// A single item, or timer, is lost among many: the counts tell.
func TestSingleLoss(t *testing.T) {
	due := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	for lack, lose := range map[store.Lack]func(w *world){
		store.LackItem:  func(w *world) { w.purgeSubject(ns.WorkStream(), ns.WorkSubject("q", streams.Class, "j77")) },
		store.LackTimer: func(w *world) { w.purgeSubject(ns.TimerStream(), ns.TimerSubject(due, streams.PurposeDue, "q", "s77")) },
	} {
		t.Run(string(lack), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				o := w.own("owner")
				w.submit(1000, "j", nil)
				w.submit(1000, "s", func(j *machine.Job) { j.State, j.Due = machine.Scheduled, due })
				if err := w.Work.Serve(t.Context(), "q", streams.Shape{AckWait: lease}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				lose(w)
				time.Sleep(10 * time.Second)
				w.wantHealed(o, lacks{lack: 1})
			})
		})
	}
}

// What no count tells of is found by the slow round.
func TestSlowRound(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		o := w.own("owner")
		w.create(job("ended"))
		w.change("q.ended", machine.Stopped{Cause: "no", At: time.Now()}) // without a time to live
		time.Sleep(time.Minute)
		w.wantHealed(o, lacks{store.LackExpiry: 1})
		w.purge(ns.TimerStream())
		time.Sleep(10 * time.Minute)
		w.wantHealed(o, lacks{store.LackExpiry: 2})
	})
}

// A consumer that has items, and workers that wait, and delivers nothing is made
// anew. One that is paused, or has as many in hand as it may, is not.
func TestDeafConsumer(t *testing.T) {
	const durable = "q"
	config := jetstream.ConsumerConfig{
		Durable: durable, FilterSubject: ns.WorkSubject("q", streams.Class, ">"), AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour,
	}
	later := time.Now().Add(100 * 365 * 24 * time.Hour)
	busy := func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1 }
	for _, test := range []struct {
		name   string
		change func(*jetstream.ConsumerConfig)
		pull   string
		deaf   bool
	}{
		{"deaf", func(c *jetstream.ConsumerConfig) {
			c.PriorityPolicy, c.PriorityGroups = jetstream.PriorityPolicyOverflow, []string{"g"}
		}, `{"batch":10,"expires":3600000000000,"group":"g","min_pending":1000}`, true},
		{"paused", func(c *jetstream.ConsumerConfig) { c.PauseUntil = &later }, `{"batch":10,"expires":3600000000000}`, false},
		{"busy", busy, `{"batch":10,"expires":3600000000000}`, false},
		{"not asked", busy, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c := config
				test.change(&c)
				made := must(w.js.CreateConsumer(t.Context(), ns.WorkStream(), c))(t).CachedInfo().Created
				inbox := must(w.pub.Conn().SubscribeSync(w.pub.Conn().NewInbox()))(t)
				if test.pull != "" {
					err := w.pub.Conn().PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+ns.WorkStream()+"."+durable, inbox.Subject, []byte(test.pull))
					if err != nil {
						t.Fatal(err)
					}
				}
				w.own("owner")
				w.submit(10, "j", nil)
				time.Sleep(time.Minute)
				info := must(w.js.Consumer(t.Context(), ns.WorkStream(), durable))(t).CachedInfo()
				if deaf := !info.Created.Equal(made); deaf != test.deaf {
					t.Errorf("made anew: %v, want %v", deaf, test.deaf)
				}
			})
		})
	}
}

// The consumer of a rarer class that is deaf goes: workers make it again. Its items
// are looked after like others.
func TestDeafClass(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const durable = "q=high"
		must(w.js.CreateConsumer(t.Context(), ns.WorkStream(), jetstream.ConsumerConfig{
			Durable: durable, FilterSubject: ns.WorkSubject("q", streams.High, ">"), AckPolicy: jetstream.AckExplicitPolicy,
			PriorityPolicy: jetstream.PriorityPolicyOverflow, PriorityGroups: []string{"g"},
		}))(t)
		inbox := must(w.pub.Conn().SubscribeSync(w.pub.Conn().NewInbox()))(t)
		pull := []byte(`{"batch":10,"expires":3600000000000,"group":"g","min_pending":1000}`)
		if err := w.pub.Conn().PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+ns.WorkStream()+"."+durable, inbox.Subject, pull); err != nil {
			t.Fatal(err)
		}
		o := w.own("owner")
		w.submit(10, "j", func(j *machine.Job) { j.Class = machine.High })
		time.Sleep(time.Minute)
		var names []string
		for _, c := range must(w.Work.Consumers(t.Context(), "q"))(t) {
			names = append(names, c.Name)
		}
		if len(names) != 1 || names[0] != "q" {
			t.Errorf("the consumers are %v, want that of the normal class", names)
		}
		w.wantHealed(o, nil)
		w.purge(ns.WorkStream())
		time.Sleep(soon)
		w.wantHealed(o, lacks{store.LackItem: 10})
		if used := must(w.Work.Used(t.Context(), "q"))(t); len(used) != 1 || used[0] != streams.High {
			t.Errorf("what was offered again is of the classes %v", used)
		}
	})
}
