package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/follow"
	"github.com/millrace/millrace/internal/publish"
)

// Load is what a queue has to do.
type Load struct {
	Waiting uint64 // items in nobody's hands
	Taken   uint64 // items in the hands of workers, or to come back from them
	// Asking is how many pulls wait for an item. While items wait and nobody
	// asks, no worker has a free slot.
	Asking int
}

// Load returns what a queue has to do, over all classes. It returns
// [ErrNoConsumer] if the queue has no consumer.
func (w *Work) Load(ctx context.Context, queue string) (load Load, err error) {
	for _, class := range []string{Class, High, Low} {
		limited, err := w.load(ctx, durable(queue, class), &load)
		switch {
		case errors.Is(err, jetstream.ErrConsumerNotFound) && class != Class:
			// Nobody has used it.
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			return Load{}, ErrNoConsumer
		case err != nil:
			return Load{}, fmt.Errorf("streams: count items of queue %s: %w", queue, err)
		case limited:
			return load, nil // it has the items of all classes
		}
	}
	return load, nil
}

// load adds what one consumer has to do, and reports whether it is that of a
// queue with a limit.
func (w *Work) load(ctx context.Context, name string, sum *Load) (limited bool, err error) {
	var answer struct {
		publish.Refusal
		Waiting uint64 `json:"num_pending"`
		Taken   uint64 `json:"num_ack_pending"`
		Asking  int    `json:"num_waiting"`
		Config  struct {
			MaxAckPending int `json:"max_ack_pending"`
		} `json:"config"`
	}
	if err := w.pub.Ask(ctx, "CONSUMER.INFO."+w.ns.WorkStream()+"."+name, nil, &answer); err != nil {
		return false, err
	}
	sum.Waiting += answer.Waiting
	sum.Taken += answer.Taken
	sum.Asking += answer.Asking
	return answer.Config.MaxAckPending > 0, nil
}

// Queues returns the queues that have consumers, in order.
func (w *Work) Queues(ctx context.Context) ([]string, error) {
	var queues []string
	for seen, total := 0, 1; seen < total; {
		request := struct {
			Offset int `json:"offset"`
		}{seen}
		var answer struct {
			publish.Refusal
			Total     int      `json:"total"`
			Consumers []string `json:"consumers"`
		}
		if err := w.pub.Ask(ctx, "CONSUMER.NAMES."+w.ns.WorkStream(), request, &answer); err != nil {
			return nil, fmt.Errorf("streams: list the consumers of the work queue: %w", err)
		}
		if len(answer.Consumers) == 0 {
			break
		}
		for _, name := range answer.Consumers {
			queue, _, _ := strings.Cut(name, "=") // of a class
			queues = append(queues, queue)
		}
		seen, total = seen+len(answer.Consumers), answer.Total
	}
	slices.Sort(queues)
	return slices.Compact(queues), nil
}

// hasTries is how often Has looks again because an item was done with while it
// looked.
const hasTries = 5

// Ref names a job, and where its item lies: in the mailbox of a node, or if that is
// "" in its queue.
type Ref struct{ ID, Node string }

// Has returns which of up to 1,024 jobs, by their IDs, have an item, in whatever
// hands it is. Any replica answers, so an item that was just offered may not be
// seen: ask [Work.Offered] before acting on it.
func (w *Work) Has(ctx context.Context, refs []Ref) (map[string]bool, error) {
	has, subjects := make(map[string]bool, len(refs)), map[string][]string{}
	for _, ref := range refs {
		queue, local, _ := strings.Cut(ref.ID, ".")
		stream, subject := w.home(ref.Node, queue, local)
		subjects[stream] = append(subjects[stream], subject)
	}
	for stream, of := range subjects {
		if err := w.has(ctx, stream, of, has); err != nil {
			return nil, fmt.Errorf("streams: look for items of %d jobs: %w", len(refs), err)
		}
	}
	return has, nil
}

// has notes of which jobs there are items on some subjects.
func (w *Work) has(ctx context.Context, stream string, subjects []string, has map[string]bool) error {
	get := direct.Get{MultiLast: subjects}
	for try := 1; ; try++ {
		err := get.All(ctx, w.pub, stream, func(m publish.Message) {
			if item, ok := w.parseSubject(m.Subject); ok {
				has[item.Queue+"."+item.Local] = true
			}
		})
		if !errors.Is(err, direct.ErrLost) || try == hasTries {
			return err
		}
	}
}

// Count returns how many timers there are, and the sequence of the last one that
// was ever set.
func (t *Timers) Count(ctx context.Context) (messages, lastSequence uint64, err error) {
	var answer struct {
		publish.Refusal
		State struct {
			Messages uint64 `json:"messages"`
			Last     uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := t.pub.Ask(ctx, "STREAM.INFO."+t.ns.TimerStream(), nil, &answer); err != nil {
		return 0, 0, fmt.Errorf("streams: count timers: %w", err)
	}
	return answer.State.Messages, answer.State.Last, nil
}

// scanBatch is how many timers are read at a time.
const scanBatch = 5000

// Subjects visits the timers that were set before it was called, and ends with
// the first error of visit. A timer that stays all the while is visited; a job
// that has several for one purpose, once for each.
func (t *Timers) Subjects(ctx context.Context, visit func(purpose Purpose, queue, local string) error) error {
	messages, last, err := t.Count(ctx)
	if err != nil || messages == 0 {
		return err
	}
	opts := follow.Options{Stream: t.ns.TimerStream(), Until: last, Headers: true, Batch: scanBatch}
	err = follow.Run(ctx, t.pub, opts, func(msg follow.Message) error {
		timer, err := t.parseSubject(msg.Subject)
		if err != nil {
			return nil // nobody asks for what this build does not know
		}
		return visit(timer.Purpose, timer.Queue, timer.Local)
	})
	if err == nil && ctx.Err() != nil {
		return fmt.Errorf("streams: list timers: %w", context.Cause(ctx))
	}
	return err
}
