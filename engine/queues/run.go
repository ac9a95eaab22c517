package queues

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/kv"
)

const (
	// heardAtOnce is how many changes may wait to be noted. What is more is
	// lost, and read within 30 s.
	heardAtOnce = 256
	// readAgain is the pause after a reading that failed.
	readAgain = 250 * time.Millisecond
	// soon is when definitions are read a second time after a reconnect: in a
	// cluster the server that tells of changes may learn of the listener late.
	soon = time.Second
)

// Run keeps the book until ctx ends. It may be called by several at once; one of
// them does the work. The only other end is that of the connection.
func (b *Book) Run(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil
	}
	nc := b.pub.Conn()
	told := make(chan *nats.Msg, heardAtOnce)
	sub, err := nc.ChanSubscribe(b.opts.Namespace.ConfigFeed()+allKeys, told)
	if err != nil {
		return fmt.Errorf("engine: listen to the definitions of queues: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	status := nc.StatusChanged(nats.CONNECTED, nats.DISCONNECTED, nats.RECONNECTING, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	defer b.setCurrent(false)
	ctx, cancel := context.WithCancel(ctx)
	var hearing sync.WaitGroup
	hearing.Go(func() { b.listen(ctx, told) })
	defer hearing.Wait()
	defer cancel()

	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-status:
			if s == nats.CLOSED {
				return fmt.Errorf("engine: listen to the definitions of queues: %w", nats.ErrConnectionClosed)
			}
			b.setCurrent(false)
		case <-again.C:
		}
		again.Reset(b.read(ctx))
	}
}

// listen notes changes as the server tells of them, until ctx ends. It does so also
// while the definitions are read, which may take as long as an answer that is lost:
// nothing is to start for so long in a queue that was paused.
func (b *Book) listen(ctx context.Context, told <-chan *nats.Msg) {
	for {
		select {
		case <-ctx.Done():
			return
		case msg := <-told:
			b.hear(msg)
		}
	}
}

// read reads what there is to read, and returns when to do it again.
func (b *Book) read(ctx context.Context) time.Duration {
	if !b.pub.Conn().IsConnected() {
		return readAgain
	}
	if b.reading.Acquire(ctx, 1) != nil {
		return readAgain
	}
	defer b.reading.Release(1)
	if b.isCurrent() {
		if err := b.catchUp(ctx); err != nil {
			b.opts.Logger.DebugContext(ctx, "definitions of queues are read again", "err", err)
			return readAgain
		}
		return rereadEvery
	}
	if err := b.load(ctx); err != nil {
		b.opts.Logger.DebugContext(ctx, "definitions of queues are read again", "err", err)
		return readAgain
	}
	b.setCurrent(true)
	return soon
}

// hear notes a change that the server tells of.
func (b *Book) hear(msg *nats.Msg) {
	k, ok := strings.CutPrefix(msg.Subject, b.opts.Namespace.ConfigFeed())
	revision, err := strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64)
	if !ok || err != nil {
		return // nobody of ours says such a thing
	}
	event := kv.Event[stored]{Kind: kv.Deleted, Entry: kv.Entry[stored]{Key: k, Revision: revision}}
	if !kv.IsMarker(msg.Header) {
		event.Kind, event.Entry.Value = kv.Put, readStored(msg.Header, msg.Data)
	}
	queue, p := b.pageOf(event)
	b.mu.Lock()
	defer b.mu.Unlock()
	if revision > b.mu.upTo {
		b.turnTo(queue, p)
	}
}

func (b *Book) isCurrent() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.current
}

func (b *Book) setCurrent(current bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.current != current {
		b.mu.current = current
		b.tell()
	}
}
