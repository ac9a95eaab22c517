package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/wait"
)

// The classes of priority that have consumers of their own, in a queue without a
// limit. Items that ask for no class are of [Class].
const (
	High = "high"
	Low  = "low"
)

// rare are the classes whose consumers are made when they are first used.
var rare = []string{High, Low}

// Shape is how a queue is served. The definition of the queue says it.
type Shape struct {
	// AckWait is after how long an item comes back that nobody acknowledges
	// or keeps alive: the namespace's lease.
	AckWait time.Duration
	// Concurrency is how many items are in the hands of workers at once, of all
	// of them together. 0 means any number.
	Concurrency int
}

const (
	// maxWaiting is how many workers can wait for one queue.
	maxWaiting = 1 << 14
	// shapings is how often Serve starts again because somebody else made a
	// consumer meanwhile.
	shapings = 5
	// errOverlap is the code with which a server refuses a consumer that would
	// get items of another one.
	errOverlap jetstream.ErrorCode = 10100
	// errCreate is the code with which a server says that it could not store a
	// consumer, as when it has not done with the files of one of that name.
	errCreate jetstream.ErrorCode = 10012
)

// class returns the class of the subjects of items that ask for one. A class that
// this build does not know would have no consumer.
func class(asked string) string {
	if slices.Contains(rare, asked) {
		return asked
	}
	return Class
}

// durable returns the name of a consumer. Names that users give have no "=".
func durable(queue, asked string) string {
	if class(asked) == Class {
		return queue
	}
	return queue + "=" + asked
}

// consumer is the consumer of one class of a queue, or of all if there is a
// limit.
func (w *Work) consumer(queue, asked string, shape Shape) jetstream.ConsumerConfig {
	config := jetstream.ConsumerConfig{
		Durable:       durable(queue, asked),
		Description:   "Millrace queue " + queue,
		FilterSubject: w.ns.WorkSubject(queue, class(asked), ">"),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       shape.AckWait,
		MaxDeliver:    -1,
		MaxAckPending: -1,
		MaxWaiting:    maxWaiting,
	}
	if shape.Concurrency > 0 {
		config.MaxAckPending = shape.Concurrency
		config.FilterSubject = w.ns.subject("work." + queue + ".>")
	}
	return config
}

// Open makes the consumer of a class of a queue, "" for the normal one, if there
// is none, and changes none that is there, whatever its shape. So whoever works
// with an old definition undoes nothing. A class of a queue with a limit has no
// consumer of its own: the server refuses one.
func (w *Work) Open(ctx context.Context, queue, class string, shape Shape) error {
	want := w.consumer(queue, class, shape)
	_, err := w.js.Consumer(ctx, w.ns.WorkStream(), want.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		_, err = w.js.CreateConsumer(ctx, w.ns.WorkStream(), want)
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerExists) { // which somebody made meanwhile
		return fmt.Errorf("streams: open the consumer of queue %s: %w", want.Durable, err)
	}
	return nil
}

// Serve brings the consumers of a queue into a shape. Who calls it has read the
// definition of the queue from the leader, and reads it again afterwards: if it
// is another by then, Serve is called again. So the last of several who do it at
// once leaves what the definition says, unless it dies: then the owner does it.
//
// A queue without a limit has a consumer for each class that is used, one with a
// limit has a single one for all of them: the server keeps two consumers from
// getting the same item, so the two shapes exclude each other whoever does what.
// A limit is changed in place. Between the two shapes the consumers are deleted
// and the queue's is made anew: one whose filter changes in place never delivers
// what it has passed. The new one delivers everything that nobody has
// acknowledged once more, and workers leave alone what runs; so a limit that is
// given to a queue holds from when what ran without it has ended, while one that
// is changed, or whose consumer was lost, holds all the time: what may run are the
// oldest items.
//
// If the process dies after a consumer was deleted, or the answer is lost,
// whoever opens or serves the queue next makes it. Items stay where they are. If
// somebody opens a consumer meanwhile by an old definition, the server refuses the
// one of this shape, and Serve starts again.
func (w *Work) Serve(ctx context.Context, queue string, shape Shape) error {
	var err error
	for range shapings {
		if err = w.serve(ctx, queue, shape); !raced(err) {
			break
		}
		wait.For(ctx, again)
	}
	if err != nil {
		return fmt.Errorf("streams: serve queue %s: %w", queue, err)
	}
	return nil
}

// raced reports whether err says that a consumer came or went meanwhile, or is
// still going.
func raced(err error) bool {
	var refused *jetstream.APIError
	return errors.Is(err, jetstream.ErrConsumerExists) || errors.Is(err, jetstream.ErrConsumerNotFound) ||
		errors.Is(err, jetstream.ErrConsumerDoesNotExist) || errors.As(err, &refused) && (refused.ErrorCode == errOverlap || refused.ErrorCode == errCreate)
}

func (w *Work) serve(ctx context.Context, queue string, shape Shape) error {
	want, stream := w.consumer(queue, Class, shape), w.ns.WorkStream()
	c, err := w.js.Consumer(ctx, stream, queue)
	missing := errors.Is(err, jetstream.ErrConsumerNotFound)
	if err != nil && !missing {
		return err
	}
	if !missing {
		config := c.CachedInfo().Config
		switch {
		case shaped(config, want):
			return nil
		case config.FilterSubject == want.FilterSubject:
			config.AckWait, config.MaxAckPending = want.AckWait, want.MaxAckPending
			_, err = w.js.UpdateConsumer(ctx, stream, config)
			return err
		}
	}
	if shape.Concurrency > 0 {
		for _, class := range rare {
			if err := w.close(ctx, durable(queue, class)); err != nil {
				return err
			}
		}
	}
	if !missing {
		if err := w.close(ctx, queue); err != nil {
			return err
		}
	}
	_, err = w.js.CreateConsumer(ctx, stream, want)
	return err
}

// shaped reports whether a consumer is as it is wanted.
func shaped(config, want jetstream.ConsumerConfig) bool {
	return config.FilterSubject == want.FilterSubject && config.AckWait == want.AckWait && config.MaxAckPending == want.MaxAckPending
}

// close deletes a consumer. If it is gone, that is success.
func (w *Work) close(ctx context.Context, name string) error {
	err := w.js.DeleteConsumer(ctx, w.ns.WorkStream(), name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil
	}
	return err
}

// Consumers returns the consumers of a queue as they are, that of the normal class
// first. Those that are not there are left out.
func (w *Work) Consumers(ctx context.Context, queue string) ([]*jetstream.ConsumerInfo, error) {
	var list []*jetstream.ConsumerInfo
	for _, class := range []string{Class, High, Low} {
		c, err := w.js.Consumer(ctx, w.ns.WorkStream(), durable(queue, class))
		switch {
		case err == nil:
			list = append(list, c.CachedInfo())
		case !errors.Is(err, jetstream.ErrConsumerNotFound):
			return nil, fmt.Errorf("streams: look at the consumers of queue %s: %w", queue, err)
		}
	}
	return list, nil
}

// Used returns which classes besides the normal one have items in a queue, in
// whatever hands they are. The leader answers.
func (w *Work) Used(ctx context.Context, queue string) ([]string, error) {
	var classes []string
	for _, class := range rare {
		last, err := find(ctx, w.pub, w.ns.WorkStream(), w.ns.WorkSubject(queue, class, ">"))
		if err != nil {
			return nil, fmt.Errorf("streams: look for items of queue %s: %w", queue, err)
		}
		if last.Sequence > 0 {
			classes = append(classes, class)
		}
	}
	return classes, nil
}

// Hear calls first when the next item is offered to a class of a queue, once and
// from a goroutine that it must not block. It may be missed: see [Work.Used]. The
// caller must call stop.
func (w *Work) Hear(queue, class string, first func()) (stop func(), err error) {
	sub, err := w.pub.Conn().Subscribe(w.ns.WorkSubject(queue, class, ">"), func(*nats.Msg) { first() })
	if err == nil {
		err = sub.AutoUnsubscribe(1)
	}
	if err != nil {
		return nil, fmt.Errorf("streams: listen for items of queue %s: %w", queue, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // which fails if it heard one
}

// Reconnected returns a channel that is written to when the connection is there
// again. The caller must call stop.
func (w *Work) Reconnected() (back <-chan nats.Status, stop func()) {
	nc := w.pub.Conn()
	c := nc.StatusChanged(nats.CONNECTED)
	return c, func() { nc.RemoveStatusListener(c) }
}
