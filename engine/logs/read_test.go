package logs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/logs"
)

// feed is what one reader has visited.
type feed struct {
	mu    sync.Mutex
	texts []string
}

func (f *feed) visit(line logs.Line) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.texts = append(f.texts, fmt.Sprint(line.Attempt, line.Text))
	return nil
}

func (f *feed) want(t *testing.T, want ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := cmp.Diff(want, f.texts); d != "" {
		t.Errorf("visited (-want +got):\n%s", d)
	}
}

// A reader that waits hears each line when it is said, over several attempts,
// and ends once the job has, with everything that was stored by then.
func TestReadLive(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		one, first := w.writer(1)
		first.Info("a")
		w.flush(one)
		var f feed
		ended, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- w.reading.Read(t.Context(), "mail.a", logs.ReadOptions{Ended: ended}, f.visit)
		}()
		time.Sleep(time.Minute)
		f.want(t, "1a")
		first.Info("b")
		synctest.Wait()
		f.want(t, "1a", "1b")
		two, second := w.writer(2)
		second.Info("c")
		w.flush(two)
		second.Info("d")
		w.flush(two)
		close(ended)
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.want(t, "1a", "1b", "2c", "2d")
	})
}

// The tail is the last lines of those that are there, and then all that come.
func TestReadTail(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, log := w.writer(1)
		for _, text := range []string{"a", "b", "c"} {
			writer.Say(text)
		}
		w.flush(writer)
		for n, want := range map[int][]string{1: {"1c"}, 2: {"1b", "1c"}, 9: {"1a", "1b", "1c"}} {
			var f feed
			if err := w.reading.Read(t.Context(), "mail.a", logs.ReadOptions{Tail: n}, f.visit); err != nil {
				t.Error(err)
			}
			f.want(t, want...)
		}
		var f feed
		ended, done := make(chan struct{}), make(chan error, 1)
		go func() {
			done <- w.reading.Read(t.Context(), "mail.a", logs.ReadOptions{Tail: 1, Ended: ended}, f.visit)
		}()
		time.Sleep(time.Second)
		log.Info("d")
		time.Sleep(time.Second)
		close(ended)
		if err := <-done; err != nil {
			t.Error(err)
		}
		f.want(t, "1c", "1d")
	})
}

// The lines of an earlier job with the same ID, and those of other jobs, are left
// out.
func TestReadApart(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, log := w.writer(1)
		log.Info("old")
		other := w.writing.Writer(t.Context(), logs.Source{Job: "mail.b", Attempt: 1})
		defer other.Close()
		w.flush(writer)
		time.Sleep(time.Second)
		since := time.Now()
		again := w.writing.Writer(t.Context(), logs.Source{Job: "mail.a", Attempt: 1, Fence: 99})
		defer again.Close()
		if err := again.Handler().Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelInfo, "new", 0)); err != nil {
			t.Error(err)
		}
		w.flush(again)
		var f feed
		if err := w.reading.Read(t.Context(), "mail.a", logs.ReadOptions{Since: since}, f.visit); err != nil {
			t.Error(err)
		}
		f.want(t, "1new")
	})
}

// What something else has published is told of, and does not end the reading.
func TestReadForeign(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, log := w.writer(1)
		log.Info("a")
		w.flush(writer)
		for header, body := range map[string]string{"other/1": "{}", "line/2": "{}", "line/1": "{"} {
			msg := &nats.Msg{Subject: ns.LogSubject("mail.a"), Header: nats.Header{"Mr-Type": {header}}, Data: []byte(body)}
			if _, err := w.pub.Publish(t.Context(), msg); err != nil {
				t.Fatal(err)
			}
		}
		log.Info("b")
		w.flush(writer)
		var unreadable, readable int
		for _, line := range w.read(logs.ReadOptions{}) {
			if line.Attempt == 0 {
				unreadable++
			} else {
				readable++
			}
		}
		if unreadable != 3 || readable != 2 {
			t.Errorf("%d lines can be read and %d cannot, want 2 and 3", readable, unreadable)
		}
	})
}

// A reader waits while NATS is away, and stops when it is told to.
func TestReadAway(t *testing.T) {
	bubble(t, nil, func(t *testing.T, w *world) {
		writer, log := w.writer(1)
		log.Info("a")
		w.flush(writer)
		w.link.Down()
		time.AfterFunc(time.Minute, w.link.Up)
		var f feed
		if err := w.writing.Read(t.Context(), "mail.a", logs.ReadOptions{}, f.visit); err != nil {
			t.Error(err)
		}
		f.want(t, "1a")

		enough := errors.New("enough")
		if err := w.reading.Read(t.Context(), "mail.a", logs.ReadOptions{}, func(logs.Line) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("got %v, want the error of visit", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := w.reading.Read(ctx, "mail.a", logs.ReadOptions{Ended: make(chan struct{})}, f.visit)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the time is over", err)
		}
	})
}
