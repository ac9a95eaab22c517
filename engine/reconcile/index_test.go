package reconcile

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// model is what an index should remember, in the plainest way.
type model map[string]record

// Whatever is read, the index counts as a plain list of the jobs would.
func TestIndexCounts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := noon
		x, m := newIndex(now), model{}
		ids := rapid.SampledFrom([]string{"a.1", "a.2", "a.3", "b.1", "b.2"})
		at := rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(noon.Add(-time.Minute).UnixMilli(), noon.Add(2*time.Minute).UnixMilli()))
		for sequence := range uint64(rapid.IntRange(1, 60).Draw(t, "steps")) {
			id := ids.Draw(t, "id")
			switch rapid.SampledFrom([]string{"put", "put", "drop", "forget", "wait"}).Draw(t, "step") {
			case "put":
				rec := record{sequence: sequence + 1, Glance: store.Glance{
					Due: at.Draw(t, "due"), StartBy: at.Draw(t, "start by"), Deadline: at.Draw(t, "deadline"),
					Node: rapid.SampledFrom([]string{"", "n", "m"}).Draw(t, "node"), Incarnation: rapid.Uint64Range(1, 2).Draw(t, "incarnation"),
					State: machine.Pending,
				}}
				switch rapid.IntRange(0, 4).Draw(t, "drive") {
				case 0:
					rec.State = machine.Waiting
				case 1:
					rec.Pinned, rec.PinRule = true, rapid.Bool().Draw(t, "rule")
					rec.Pin = rapid.SampledFrom([]string{"", "n", "m"}).Draw(t, "pin")
				case 2:
					rec.State, rec.Turn, rec.Due, rec.Node = machine.Scheduled, "nightly", 0, ""
				}
				x.put(id[:1], id[2:], x.entryOf(rec), now)
				m[id] = rec
			case "drop":
				x.drop(id[:1], id[2:])
				delete(m, id)
			case "forget":
				for _, r := range x.pick(id[:1], 1, func(entry) bool { return true }) {
					x.forget(ref{r.queue, r.hash, r.sequence - 1})
					x.forget(r)
					m.forget(r.sequence)
				}
			case "wait":
				now = now.Add(time.Duration(rapid.IntRange(0, 30000).Draw(t, "ms")) * time.Millisecond)
			}
			m.check(t, x, now)
		}
	})
}

func (m model) forget(sequence uint64) {
	for id, j := range m {
		if j.sequence == sequence {
			delete(m, id)
		}
	}
}

func (m model) check(t *rapid.T, x *index, now time.Time) {
	dues, items, mail, waiting, strays, turns := 0, map[string]int{}, 0, 0, 0, 0
	for id, j := range m {
		for _, ms := range []int64{j.Due, j.StartBy, j.Deadline} {
			if seconds(ms) > uint32(now.Unix()) {
				dues++
			}
		}
		ready := seconds(j.Due) <= uint32(now.Add(-grace).Unix())
		switch {
		case j.State == machine.Waiting:
			waiting++
		case j.Turn != "":
			turns++
		case j.Pinned && j.Pin == "":
		case j.Pinned && ready:
			mail++
		case !j.Pinned && ready:
			items[id[:1]]++
		}
		if j.Pinned && j.State != machine.Waiting && j.PinRule && j.Pin != "n" && j.Node == "" {
			strays++
		}
	}
	m.checkPlaces(t, x, now, [...]int{mail, waiting, strays, turns})
	if x.size() != len(m) || x.dues(now) != dues || x.items("a", now) != items["a"] || x.items("b", now) != items["b"] {
		t.Fatalf("index has %d jobs, %d timers, %d and %d items; want %d, %d, %v",
			x.size(), x.dues(now), x.items("a", now), x.items("b", now), len(m), dues, items)
	}
	picked := 0
	for _, queue := range x.names() {
		picked += len(x.pick(queue, 100, needsItem(now)))
	}
	if picked != items["a"]+items["b"] {
		t.Fatalf("%d jobs that need items were picked, want %v", picked, items)
	}
	alive := map[string]uint64{"n": 2}
	for _, queue := range []string{"a", "b"} {
		want := 0
		for id, j := range m {
			if id[:1] == queue && j.Node != "" && alive[j.Node] != j.Incarnation {
				want++
			}
		}
		if got := len(x.orphans(queue, alive)); got != want {
			t.Fatalf("queue %s has %d jobs of nodes that are gone, want %d", queue, got, want)
		}
	}
}

// checkPlaces checks what the index says of jobs in mailboxes, of those that wait for
// children or a turn, and of those that may have to go to another node than n.
func (m model) checkPlaces(t *rapid.T, x *index, now time.Time, want [4]int) {
	var got [4]int
	for _, queue := range x.names() {
		got[0] += x.mail(queue, now)
		got[1] += x.counts(now)[queue].Waiting
		got[3] += x.queues[queue].turns
		got[2] += len(x.strays(queue, -1, func(s spot) bool { return s.rule && s.node != "n" }))
	}
	if got != want {
		t.Fatalf("mail, waiting, strays and turns are %v, want %v", got, want)
	}
}

// A sample is no larger than it should be, and another one each time.
func TestIndexPick(t *testing.T) {
	t.Parallel()
	x := newIndex(noon)
	for i := range 10000 {
		x.put("q", strconv.Itoa(i), entry{sequence: uint64(i + 1)}, noon)
	}
	seen := map[uint64]bool{}
	for range 20 {
		picked := x.pick("q", 100, needsItem(noon))
		if len(picked) != 100 {
			t.Fatalf("picked %d, want 100", len(picked))
		}
		for _, r := range picked {
			seen[r.sequence] = true
		}
	}
	if len(seen) < 500 {
		t.Errorf("20 samples of 100 have %d different jobs", len(seen))
	}
	if picked := x.pick("none", 100, needsItem(noon)); picked != nil {
		t.Errorf("picked %v of an unknown queue", picked)
	}
}

// BenchmarkIndex measures the memory of b.N jobs, and the time to remember them.
func BenchmarkIndex(b *testing.B) {
	for _, kind := range []string{"pending", "scheduled"} {
		b.Run("jobs="+kind, func(b *testing.B) {
			b.ReportAllocs()
			before := heap()
			x := newIndex(noon)
			b.ResetTimer()
			for i := range b.N {
				e := entry{sequence: uint64(i)}
				if kind == "scheduled" {
					e.due = seconds(noon.Add(time.Duration(i) * time.Second).UnixMilli())
				}
				x.put("q", strconv.Itoa(i), e, noon)
			}
			b.StopTimer()
			b.ReportMetric(float64(heap()-before)/float64(b.N), "heap-B/job")
			runtime.KeepAlive(x)
		})
	}
}

// heap returns how much memory is in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
