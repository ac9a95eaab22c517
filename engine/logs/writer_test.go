package logs_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/engine/logs"
	"github.com/millrace/millrace/internal/natstest"
)

// A line has what the logger was given.
func TestLines(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, log := w.writer(1)
		log.Debug("too low")
		log.Info("plain")
		log.Warn("with attributes", "time", 1, "level", "x", "b", errors.New("no"))
		log.With("a", 1).WithGroup("g").With("b", 2).Error("nested", "c", 3)
		log.WithGroup("").With().WithGroup("empty").Info("nothing")
		w.flush(writer)

		now := time.Now().UTC()
		line := func(level slog.Level, text, attrs string) logs.Line {
			l := logs.Line{Time: now, Level: level, Attempt: 1, Node: "n1", Text: text}
			if attrs != "" {
				l.Attrs = []byte(attrs)
			}
			return l
		}
		want := []logs.Line{
			line(slog.LevelInfo, "plain", ""),
			line(slog.LevelWarn, "with attributes", `{"time":1,"level":"x","b":"no"}`),
			line(slog.LevelError, "nested", `{"a":1,"g":{"b":2,"c":3}}`),
			line(slog.LevelInfo, "nothing", ""),
		}
		if d := cmp.Diff(want, w.read(logs.ReadOptions{})); d != "" {
			t.Errorf("lines (-want +got):\n%s", d)
		}
	})
}

// What is too long is cut between characters, and says so.
func TestLinesAreBounded(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, log := w.writer(1)
		writer.Say("x" + strings.Repeat("é", logs.MaxLine))
		log.Info("a", "long", strings.Repeat("x", logs.MaxLine))
		long := slog.NewRecord(time.Now(), slog.LevelInfo, strings.Repeat("y", logs.MaxLine), 0)
		long.Add("short", 1)
		if err := log.Handler().Handle(t.Context(), long); err != nil {
			t.Error(err)
		}
		log.Info("broken \xff")
		w.flush(writer)
		lines := w.read(logs.ReadOptions{})
		if len(lines) != 4 {
			t.Fatalf("got %d lines, want 4", len(lines))
		}
		for i, want := range []struct {
			length int
			attrs  string
			cut    bool
		}{{logs.MaxLine - 1, "", true}, {1, "", true}, {logs.MaxLine - len(`{"short":1}`), `{"short":1}`, true}, {len("broken \uFFFD"), "", false}} {
			if got := lines[i]; len(got.Text) != want.length || string(got.Attrs) != want.attrs || got.Cut != want.cut {
				t.Errorf("line %d has %d bytes, attributes %s and cut %v, want %+v", i+1, len(got.Text), got.Attrs, got.Cut, want)
			}
		}
	})
}

// While NATS is away nothing waits for it, and on its return everything is stored
// in order.
func TestAway(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, log := w.writer(1)
		log.Info("before")
		w.flush(writer)
		w.link.Down()
		began := time.Now()
		var want []string
		for i := range 200 {
			want = append(want, fmt.Sprint("line ", i))
			writer.Say(want[i])
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("lines took %v", took)
		}
		time.AfterFunc(time.Minute, w.link.Up)
		if !writer.Flush(t.Context(), 2*time.Second) {
			t.Error("the time in which NATS was away counts as patience")
		}
		w.want(append([]string{"before"}, want...)...)
	})
}

// Of too many lines the last ones are kept, and a line in the place of the
// others says how many they were.
func TestTooMany(t *testing.T) {
	for _, test := range []struct{ said, size, atLeast int }{{3000, 10, 800}, {300, 8000, 120}} {
		bubble(t, nil, func(t *testing.T, w *world) {
			writer, _ := w.writer(1)
			w.link.Down()
			for i := range test.said {
				writer.Say(fmt.Sprintf("%0*d", test.size, i+1))
				if i == 0 {
					time.Sleep(10 * time.Second) // it is on its way, and so it is not dropped
				}
			}
			w.link.Up()
			w.flush(writer)
			lines := w.read(logs.ReadOptions{})
			if len(lines) < test.atLeast || lines[1].Dropped != test.said-(len(lines)-1) {
				t.Fatalf("there are %d lines, of %d, and the second is %+v", len(lines), test.said, lines[1])
			}
			if want := fmt.Sprintf("%d lines are missing: they could not be stored in time", lines[1].Dropped); lines[1].Text != want {
				t.Errorf("got %q, want %q", lines[1].Text, want)
			}
			for at, number := range map[int]int{0: 1, 2: lines[1].Dropped + 2, len(lines) - 1: test.said} {
				if want := fmt.Sprintf("%0*d", test.size, number); lines[at].Text != want {
					t.Errorf("line %d of those there are is %q, want %d", at+1, lines[at].Text, number)
				}
			}
		})
	}
}

// Whatever becomes of a line on its way, it is read once.
func TestFaults(t *testing.T) {
	const lines = 3
	for n := 1; n <= lines; n++ {
		for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.LoseAnswer, natstest.CutAfter, natstest.Hold, natstest.DownBefore, natstest.DownAfter} {
			t.Run(fmt.Sprint(n, " ", fault), func(t *testing.T) {
				decide := func(write natstest.Write) natstest.Fault {
					if write.Number == n {
						return fault
					}
					return natstest.Pass
				}
				bubble(t, decide, func(t *testing.T, w *world) {
					writer, _ := w.writer(1)
					var want []string
					for i := range lines {
						want = append(want, fmt.Sprint("line ", i))
						writer.Say(want[i])
					}
					time.Sleep(time.Minute)
					w.link.Up()
					w.link.Release()
					w.flush(writer)
					var got []string
					for _, line := range w.read(logs.ReadOptions{}) {
						got = append(got, line.Text)
					}
					if fault == natstest.Hold || fault == natstest.LoseAnswer {
						slices.Sort(got) // on a connection that stays, others overtake it
					}
					if d := cmp.Diff(want, got); d != "" {
						t.Errorf("lines (-want +got):\n%s", d)
					}
				})
			})
		}
	}
}

// A line that the server does not take is not sent for ever, and the next one
// says that it is missing.
func TestRefused(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		js, err := jetstream.New(w.nc)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), ns.LogStream())
		if err != nil {
			t.Fatal(err)
		}
		config := stream.CachedInfo().Config
		config.MaxMsgSize = 1000
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
		writer, log := w.writer(1)
		log.Info("first")
		writer.Say(strings.Repeat("x", 2000))
		log.Info("second")
		w.flush(writer)
		w.want("first", "second", "1 lines are missing: they could not be stored in time")
	})
}

// A stream that is not there is waited for, but not for ever.
func TestNoStream(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		js, err := jetstream.New(w.nc)
		if err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(t.Context(), ns.LogStream()); err != nil {
			t.Fatal(err)
		}
		writer, log := w.writer(1)
		log.Info("a")
		log.Info("b")
		began := time.Now()
		if writer.Flush(t.Context(), 2*time.Second) {
			t.Error("flushed without a stream")
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("gave up after %v, want 2s", took)
		}
		writer.Close()
		log.Info("nobody hears it")
		if said := w.said.String(); !strings.Contains(said, `msg="lines of a job are lost" job=mail.a attempt=1 lines=2`) {
			t.Errorf("the log of the process says:\n%s", said)
		}
	})
}

// A writer that nobody uses costs nothing, and closing one twice does no harm.
func TestClose(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, _ := w.writer(1)
		if !writer.Flush(t.Context(), time.Second) {
			t.Error("there is nothing to store")
		}
		writer.Close()
		writer.Close()
		if n := len(w.link.Writes()); n != 0 {
			t.Errorf("%d messages were published", n)
		}
	})
}
