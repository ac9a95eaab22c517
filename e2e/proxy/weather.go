package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// A queue of chunks holds what a delay keeps on the link: 2,048 of at most
// 16 KiB, so that 32 MiB can be on their way at once.
const (
	chunkSize  = 16 << 10
	queueDepth = 2048
)

// chunk is what one read found.
type chunk struct {
	at    time.Time
	bytes []byte
	err   error // the connection is broken; nothing follows
}

// weather is what a link does to all that it passes.
type weather struct {
	mu      sync.Mutex
	held    bool
	delay   time.Duration
	changed chan struct{} // closed at the next change
}

// fine is the weather of a link as good as new.
func fine() *weather { return &weather{changed: make(chan struct{})} }

// set changes the weather for whatever has not passed yet.
func (w *weather) set(change func(*weather)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
	close(w.changed)
	w.changed = make(chan struct{})
}

// open waits until nothing is held back.
func (w *weather) open(ctx context.Context) error { return w.await(ctx, time.Time{}) }

// await waits until what arrived at a time may pass.
func (w *weather) await(ctx context.Context, at time.Time) error {
	for {
		w.mu.Lock()
		held, late, changed := w.held, time.Until(at.Add(w.delay)), w.changed
		w.mu.Unlock()
		if !held && late <= 0 {
			return ctx.Err()
		}
		due := time.NewTimer(late)
		if held {
			due.Stop()
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-due.C:
		}
		due.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// pass copies from one end to the other until the first has nothing more to
// say. Every byte and the end itself pass when the weather lets them. If to
// cannot be written to, pass closes from.
func (w *weather) pass(ctx context.Context, from io.ReadCloser, to io.Writer) error {
	ctx, end := context.WithCancel(ctx)
	queue := make(chan chunk, queueDepth)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(queue)
		w.read(ctx, from, queue)
	})
	err := w.write(ctx, queue, to)
	if err != nil {
		_ = from.Close() // so that reading ends
	}
	end()
	reader.Wait()
	return err
}

// read queues what it finds until there is no more. While the link is held back
// it reads nothing, and the sender meets full buffers.
func (w *weather) read(ctx context.Context, from io.Reader, queue chan<- chunk) {
	buffer := make([]byte, chunkSize)
	for {
		n, err := from.Read(buffer)
		found := chunk{at: time.Now(), bytes: bytes.Clone(buffer[:n])}
		if err != nil && !errors.Is(err, io.EOF) {
			found.err = err
		}
		if w.open(ctx) != nil {
			return
		}
		select {
		case queue <- found:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// write writes what is queued, each chunk when its time has come.
func (w *weather) write(ctx context.Context, queue <-chan chunk, to io.Writer) error {
	for found := range queue {
		if err := w.await(ctx, found.at); err != nil {
			return err
		}
		if _, err := to.Write(found.bytes); err != nil {
			return err
		}
		if found.err != nil {
			return found.err
		}
	}
	return ctx.Err()
}
