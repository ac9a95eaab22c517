package streams

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// Load returns what a queue has to do. It returns [ErrNoConsumer] if the queue
// has no consumer.
func (w *Work) Load(ctx context.Context, queue string) (Load, error) {
	var answer struct {
		refusal
		Waiting uint64 `json:"num_pending"`
		Taken   uint64 `json:"num_ack_pending"`
		Asking  int    `json:"num_waiting"`
	}
	err := ask(ctx, w.pub, "CONSUMER.INFO."+w.ns.WorkStream()+"."+queue, nil, &answer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return Load{}, ErrNoConsumer
	case err != nil:
		return Load{}, fmt.Errorf("streams: count items of queue %s: %w", queue, err)
	}
	return Load{Waiting: answer.Waiting, Taken: answer.Taken, Asking: answer.Asking}, nil
}

// Held returns how many items the consumer of a queue has: those that wait, and
// those in the hands of workers. It returns [ErrNoConsumer] if there is none.
func (w *Work) Held(ctx context.Context, queue string) (uint64, error) {
	load, err := w.Load(ctx, queue)
	return load.Waiting + load.Taken, err
}

// hasTries is how often Has looks again because an item was done with while it
// looked.
const hasTries = 5

// Has returns which of up to 1,024 jobs, by their IDs, have an item, in whatever
// hands it is. Any replica answers, so an item that was just offered may not be
// seen: ask [Work.Offered] before acting on it.
func (w *Work) Has(ctx context.Context, ids []string) (map[string]bool, error) {
	has := make(map[string]bool, len(ids))
	if len(ids) == 0 {
		return has, nil
	}
	get := direct.Get{MultiLast: make([]string, len(ids))}
	for i, id := range ids {
		queue, local, _ := strings.Cut(id, ".")
		get.MultiLast[i] = w.ns.WorkSubject(queue, "*", local)
	}
	for try := 1; ; try++ {
		err := get.All(ctx, w.pub.Conn(), w.ns.WorkStream(), func(m direct.Message) {
			if queue, local, ok := w.parseSubject(m.Subject); ok {
				has[queue+"."+local] = true
			}
		})
		if errors.Is(err, direct.ErrLost) && try < hasTries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("streams: look for items of %d jobs: %w", len(ids), err)
		}
		return has, nil
	}
}

// Subjects visits the jobs of a queue that have an item, in whatever hands it
// is, and ends with the first error of visit. A job that has an item all the
// while is visited; one that has items in several classes, once for each.
//
// The server goes through all items of the queue for every 100,000, so this is
// for when they are known to be incomplete.
func (w *Work) Subjects(ctx context.Context, queue string, visit func(local string) error) error {
	filter := w.ns.WorkSubject(queue, "*", "*")
	page := func(offset int) ([]string, int, error) {
		subjects, total, err := subjects(ctx, w.pub, w.ns.WorkStream(), filter, offset)
		if err != nil {
			err = fmt.Errorf("streams: list items of queue %s: %w", queue, err)
		}
		return subjects, total, err
	}
	return turn(page, func(subject string) error {
		if _, local, ok := w.parseSubject(subject); ok {
			return visit(local)
		}
		return nil
	})
}

// subjects returns a page of the subjects of a stream that match a filter, in
// their order, and how many there are on all pages.
func subjects(ctx context.Context, pub *publish.Publisher, stream, filter string, offset int) ([]string, int, error) {
	request := struct {
		Filter string `json:"subjects_filter"`
		Offset int    `json:"offset"`
	}{filter, offset}
	var answer struct {
		refusal
		Total int `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if err := ask(ctx, pub, "STREAM.INFO."+stream, request, &answer); err != nil {
		return nil, 0, err
	}
	return slices.Sorted(maps.Keys(answer.State.Subjects)), answer.Total, nil
}

// overlap is by how much pages overlap: what is deleted between two of them
// moves what follows towards the first one.
const overlap = 1000

// turn turns the pages of a list and visits each entry once. Entries are sorted
// and may come and go meanwhile; those that stay are visited.
func turn(page func(offset int) (entries []string, total int, err error), visit func(string) error) error {
	last, back := "", overlap
	for offset := 0; ; {
		entries, total, err := page(offset)
		if err != nil {
			return err
		}
		if offset > 0 && (len(entries) == 0 || entries[0] > last) { // some may be on the page before now
			offset, back = max(offset-back, 0), 2*back
			continue
		}
		for _, entry := range entries {
			if entry <= last {
				continue
			}
			if err := visit(entry); err != nil {
				return err
			}
			last = entry
		}
		end := offset + len(entries)
		if end >= total {
			return nil
		}
		offset, back = max(end-overlap, offset+1), overlap
	}
}

// Count returns how many timers there are, and the sequence of the last one that
// was ever set.
func (t *Timers) Count(ctx context.Context) (messages, lastSequence uint64, err error) {
	var answer struct {
		refusal
		State struct {
			Messages uint64 `json:"messages"`
			Last     uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := ask(ctx, t.pub, "STREAM.INFO."+t.ns.TimerStream(), nil, &answer); err != nil {
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
	err = follow.Run(ctx, t.pub.Conn(), opts, func(msg follow.Message) error {
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
