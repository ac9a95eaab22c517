package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// wire is one direction of a link, in a bubble.
type wire struct {
	weather *weather
	near    *io.PipeWriter
	sent    []byte
	queue   chan []byte // waits for the link to take it
	ended   chan error

	mu  sync.Mutex
	got []byte
}

func newWire(ctx context.Context) *wire {
	w := &wire{weather: fine(), queue: make(chan []byte, 1000), ended: make(chan error, 1)}
	from, near := io.Pipe()
	w.near = near
	go func() { w.ended <- w.weather.pass(ctx, from, w) }()
	go func() {
		for b := range w.queue {
			_, _ = near.Write(b) // what is lost is missed in the end
		}
	}()
	return w
}

// Write is the far end.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, b...)
	return len(b), nil
}

// send sends in the background: while the link drops, it does not read.
func (w *wire) send(b []byte) {
	w.sent = append(w.sent, b...)
	w.queue <- b
	synctest.Wait()
}

// close ends what is said, with an error or nil.
func (w *wire) close(err error) {
	synctest.Wait() // until the link has taken what it takes
	close(w.queue)
	_ = w.near.CloseWithError(err)
}

func (w *wire) received() []byte {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.got)
}

// Bytes arrive whole and in order whatever the weather does in between; nothing
// arrives while it holds them back, and all of it at once when it is fine again.
func TestWeather(t *testing.T) {
	t.Parallel()
	step := rapid.SampledFrom([]string{"send", "send", "send", "wait", "delay", "drop", "heal"})
	rapid.Check(t, func(r *rapid.T) {
		plan := rapid.SliceOf(step).Draw(r, "plan")
		amounts := rapid.SliceOfN(rapid.IntRange(0, 50_000), len(plan), len(plan)).Draw(r, "amounts")
		var wrong error
		synctest.Test(t, func(t *testing.T) { wrong = follow(t.Context(), plan, amounts) })
		if wrong != nil {
			r.Fatal(wrong)
		}
	})
}

// follow does what a plan says and returns what is wrong with what arrives. An
// amount is a number of bytes, or of milliseconds.
func follow(ctx context.Context, plan []string, amounts []int) error {
	w := newWire(ctx)
	next, held, before := byte(0), false, 0
	for i, step := range plan {
		d := time.Duration(amounts[i]) * time.Millisecond
		switch step {
		case "send":
			b := make([]byte, amounts[i])
			for k := range b {
				b[k] = next
				next++
			}
			w.send(b)
		case "wait":
			time.Sleep(d)
		case "delay":
			w.weather.set(func(w *weather) { w.delay = d })
		case "drop":
			w.weather.set(func(w *weather) { w.held = true })
		case "heal":
			w.weather.set(func(w *weather) { w.held, w.delay = false, 0 })
		}
		got := w.received()
		switch {
		case !bytes.HasPrefix(w.sent, got):
			return fmt.Errorf("after step %d, %s: %d bytes arrived that are not a prefix of the %d that were sent", i, step, len(got), len(w.sent))
		case step == "heal" && len(got) != len(w.sent):
			return fmt.Errorf("after step %d: the link is fine, and %d of %d bytes have arrived", i, len(got), len(w.sent))
		case held && step != "heal" && len(got) != before:
			return fmt.Errorf("after step %d, %s: %d bytes passed a link that drops", i, step, len(got)-before)
		}
		before, held = len(got), step == "drop" || held && step != "heal"
	}
	w.weather.set(func(w *weather) { w.held, w.delay = false, 0 })
	w.close(nil)
	if err := <-w.ended; err != nil {
		return fmt.Errorf("the link broke: %w", err)
	}
	if got := w.received(); !bytes.Equal(got, w.sent) {
		return fmt.Errorf("%d bytes arrived, %d were sent", len(got), len(w.sent))
	}
	return nil
}

// A delay is the same for every chunk: what is sent at once arrives at once,
// and nothing earlier.
func TestWeatherDelay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t.Context())
		w.weather.set(func(w *weather) { w.delay = 500 * time.Millisecond })
		w.send(make([]byte, 10*chunkSize))
		time.Sleep(200 * time.Millisecond)
		w.send(make([]byte, 10*chunkSize))
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{299 * time.Millisecond, 0}, {time.Millisecond, 10}, {199 * time.Millisecond, 10}, {time.Millisecond, 20}} {
			time.Sleep(step.after)
			if got := len(w.received()); got != step.want*chunkSize {
				t.Errorf("%v later %d bytes have arrived, want %d", step.after, got, step.want*chunkSize)
			}
		}
		w.close(nil)
	})
}

// The end of a connection does not pass a link that drops, and neither does a
// link that is slow let it overtake what was said before.
func TestWeatherEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWire(t.Context())
		w.weather.set(func(w *weather) { w.held = true })
		w.send([]byte("bye"))
		w.close(io.ErrUnexpectedEOF)
		time.Sleep(time.Hour)
		select {
		case err := <-w.ended:
			t.Errorf("the end, %v, passed a link that drops", err)
		default:
		}
		w.weather.set(func(w *weather) { w.held, w.delay = false, time.Second })
		synctest.Wait()
		if err := <-w.ended; !errors.Is(err, io.ErrUnexpectedEOF) || string(w.received()) != "bye" {
			t.Errorf("got %q and then %v, want what was said and then the end", w.received(), err)
		}
	})
}

// A far end that is broken ends the reading of the near one.
func TestWeatherBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from, near := io.Pipe()
		ended := make(chan error, 1)
		_, broken := io.Pipe()
		_ = broken.CloseWithError(io.ErrClosedPipe)
		go func() { ended <- fine().pass(t.Context(), from, broken) }()
		if _, err := near.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Error("no error, want that of the far end")
		}
		if _, err := near.Write([]byte("hello")); err == nil {
			t.Error("the near end is open, want it closed")
		}
	})
}
