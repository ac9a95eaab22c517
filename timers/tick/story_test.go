package tick

import (
	"cmp"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

// Every file in testdata is stories about a schedule and an owner who is never late
// unless it is down. Accept what they print with -rewrite.
func TestStories(t *testing.T) {
	t.Parallel()
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.IsDir() {
			continue // what fuzzing and rapid found
		}
		t.Run(f.Name(), func(t *testing.T) {
			t.Parallel()
			s := &story{}
			datadriven.RunTest(t, filepath.Join("testdata", f.Name()), func(t *testing.T, d *datadriven.TestData) string {
				t.Helper()
				out := s.step(t, d)
				if s.world != nil && len(s.world.trouble) > 0 {
					t.Fatal(s.world.trouble)
				}
				return out
			})
			s.stop()
		})
	}
}

// story is a world in which jobs take as long as the story says, and what there is to
// tell of it. Times are those of the day, or dates as well once it is another day.
type story struct {
	world *world
	owner *owner
	next  func() (struct{}, bool)
	kill  func()

	takes time.Duration
	fails bool
	start time.Time
	lines []string
	told  map[string]machine.State
	state string
}

func (s *story) step(t *testing.T, d *datadriven.TestData) string {
	s.lines = nil
	switch d.Cmd {
	case "define":
		s.stop()
		s.world = newWorld()
		s.world.now = moment(t, arg(d, "at", worldStart.Format(time.RFC3339)), worldStart)
		s.start, s.told, s.fails = s.world.now, map[string]machine.State{}, false
		s.takes = span(t, arg(d, "takes", "0s"))
		s.begin()
		s.define(d.Input)
	case "edit":
		s.define(d.Input)
	case "pause", "resume":
		def := s.world.def.Schedule
		paused := d.Cmd == "pause"
		def.Paused, def.Note = &paused, d.Input
		s.store(def)
	case "delete":
		s.world.remove()
	case "trigger":
		s.world.trigger()
	case "backfill":
		s.world.backfill(moment(t, arg(d, "from", ""), s.start), moment(t, arg(d, "to", ""), s.start))
	case "retry":
		s.world.apply(s.find(arg(d, "id", "")), 0, machine.Redriven{At: s.world.now})
	case "cancel":
		s.world.apply(s.find(arg(d, "id", "")), 0, machine.Stopped{Cause: "enough", At: s.world.now})
	case "stop":
		s.stop()
	case "start":
		s.begin()
	case "down":
		s.stop()
		s.until(moment(t, arg(d, "until", ""), s.start))
		s.begin()
	case "run":
		s.takes, s.fails = span(t, arg(d, "takes", s.takes.String())), arg(d, "fails", fmt.Sprint(s.fails)) == "true"
		s.until(moment(t, arg(d, "until", ""), s.start))
	default:
		t.Fatalf("no such command: %s", d.Cmd)
	}
	s.settle()
	s.tellCursor()
	if len(s.lines) == 0 {
		return "nothing happens"
	}
	if d.HasArg("count") {
		return s.counted()
	}
	return strings.Join(s.lines, "\n")
}

// counted tells how often each thing happened.
func (s *story) counted() string {
	counts := map[string]int{}
	var order []string
	for _, line := range s.lines {
		words := strings.Fields(line)
		what := words[1]
		if strings.HasPrefix(words[0], "next") {
			what = line
		} else if what == "skipped" {
			what += " " + words[3]
			if strings.Contains(line, " and ") {
				what += ", rolled up"
			}
		}
		if counts[what] == 0 {
			order = append(order, what)
		}
		counts[what]++
	}
	var b strings.Builder
	for _, what := range order {
		if counts[what] == 1 && strings.HasPrefix(what, "next") {
			fmt.Fprintln(&b, what)
		} else {
			fmt.Fprintf(&b, "%d × %s\n", counts[what], what)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (s *story) define(text string) {
	docs, err := spec.Parse("story", []byte("kind: Schedule\nname: s\njob: r.b\n"+text))
	if err != nil {
		s.tell("%v", err)
		return
	}
	s.store(docs[0].(spec.Schedule))
}

func (s *story) store(def spec.Schedule) {
	if err := s.world.define(def); err != nil {
		s.tell("%v", err)
	}
}

// begin starts an owner.
func (s *story) begin() {
	never := func() bool { return false }
	s.world.leader++
	s.owner = &owner{w: s.world, id: s.world.leader, lag: func() time.Duration { return 0 }, lost: never, old: never, said: func(Cursor, Facts, *Definition, Step) {}}
	s.next, s.kill = iter.Pull(func(yield func(struct{}) bool) {
		s.owner.pause = func() bool { return yield(struct{}{}) }
		s.owner.serve()
	})
}

func (s *story) stop() {
	if s.kill != nil {
		s.kill()
		s.kill, s.next = nil, nil
	}
}

// settle lets everything happen that happens now.
func (s *story) settle() {
	for range 100_000 {
		w := s.world
		if s.next != nil && !s.owner.idle() {
			s.next()
			continue
		}
		before := w.heard
		for _, id := range w.ids {
			switch j := w.jobs[id]; {
			case w.ready(j.job):
				w.claim(id, s.takes, s.fails)
				s.tellJobs()
			case j.job.State == machine.Running && !j.ends.After(w.now):
				w.end(id)
			}
		}
		s.tellJobs()
		if before == w.heard {
			return
		}
	}
	s.tell("it does not come to rest")
}

// until lets time pass.
func (s *story) until(end time.Time) {
	for s.settle(); s.world.now.Before(end); s.settle() {
		next := end
		if s.next != nil && s.owner.rests.After(s.world.now) {
			next = earlier(next, s.owner.rests)
		}
		for _, id := range s.world.ids {
			switch j := s.world.jobs[id]; {
			case j.job.State == machine.Running:
				next = earlier(next, j.ends)
			case j.job.Wait == machine.WaitDelay:
				next = earlier(next, j.job.Due)
			}
		}
		s.world.now = next
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func (s *story) tell(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// tellJobs tells what became of jobs since it was told last.
func (s *story) tellJobs() {
	ids := slices.Clone(s.world.ids)
	slices.SortFunc(ids, func(a, b string) int {
		x, y := s.world.jobs[a].job, s.world.jobs[b].job
		return cmp.Or(x.Tick.At.Compare(y.Tick.At), cmp.Compare(a, b))
	})
	for _, id := range ids {
		j := s.world.jobs[id].job
		state := j.State
		if j.Wait == machine.WaitTurn {
			state = "waits"
		}
		if s.told[id] == state {
			continue
		}
		s.told[id] = state
		switch {
		case state == machine.Pending, state == machine.Scheduled && !j.Due.After(s.world.now):
		case state == machine.Skipped:
			more := ""
			if m := j.Tick.More; m != nil {
				more = fmt.Sprintf(" and %d more until %s", m.Count, s.clock(m.Until))
			}
			s.tell("%s skipped %s %s%s: %s", s.clock(s.world.now), s.name(j), j.Error.Code, more, j.Error.Message)
		case state == machine.Scheduled:
			s.tell("%s scheduled %s due at %s", s.clock(s.world.now), s.name(j), s.clock(j.Due))
		default:
			s.tell("%s %s %s", s.clock(s.world.now), state, s.name(j))
		}
	}
}

// name is what a job is called: the time of its tick, its number, and who made it.
func (s *story) name(j machine.Job) string {
	by := cmp.Or(string(j.Tick.By), fmt.Sprint("#", j.Tick.Number))
	return s.clock(j.Tick.At) + by
}

func (s *story) find(name string) string {
	for id, j := range s.world.jobs {
		if s.name(j.job) == name {
			return id
		}
	}
	return name
}

// tellCursor tells what is to come, if that is not what it was.
func (s *story) tellCursor() {
	c, _ := s.world.load()
	state := "next: none"
	if !c.Next.IsZero() {
		state = "next: " + s.clock(c.Next) + fmt.Sprint("#", c.Number)
	}
	if c.Halted != nil {
		state += fmt.Sprintf(", halted after %d failures", c.Halted.Failures)
	}
	if b := c.Burst; b != nil && b.Roll != nil {
		state += ", collecting"
	}
	if len(c.Holders)+len(c.Queue) > 0 {
		state += fmt.Sprintf(", %d go on, %d wait", len(c.Holders), len(c.Queue))
	}
	if state != s.state {
		s.tell("%s", state)
	}
	s.state = state
}

func (s *story) clock(at time.Time) string {
	at = at.UTC()
	layout := "15:04:05"
	if at.Truncate(24*time.Hour) != s.start.Truncate(24*time.Hour) {
		layout = "01-02T15:04:05"
	}
	if at.Nanosecond() != 0 {
		layout += ".999999"
	}
	return at.Format(layout)
}

func arg(d *datadriven.TestData, key, otherwise string) string {
	for _, a := range d.CmdArgs {
		if a.Key == key && len(a.Vals) > 0 {
			return a.Vals[0]
		}
	}
	return otherwise
}

func span(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := spec.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(d)
}

// moment reads 15:04:05 of the day on which the story begins, or a time.
func moment(t *testing.T, text string, start time.Time) time.Time {
	t.Helper()
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at
	}
	at, err := time.Parse("15:04:05.999", text)
	if err != nil {
		t.Fatal(err)
	}
	return start.Truncate(24 * time.Hour).Add(at.Sub(at.Truncate(24 * time.Hour)))
}
