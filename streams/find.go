package streams

import (
	"context"
	"fmt"
	"strconv"

	"github.com/millrace/millrace/internal/publish"
)

// Has reports whether a timer is set: one of the same purpose, time and job. The
// leader answers.
func (t *Timers) Has(ctx context.Context, timer Timer) (bool, error) {
	sequence, err := t.find(ctx, timer)
	return sequence > 0, timer.failed("look for", err)
}

// find returns the sequence of a timer, or 0 if it is not set. One that is due at
// another time of the same minute has the same subject.
func (t *Timers) find(ctx context.Context, timer Timer) (uint64, error) {
	if err := timer.validate(); err != nil {
		return 0, err
	}
	last, err := find(ctx, t.pub, t.ns.TimerStream(), t.subject(timer))
	if number(last, dueHeader) != uint64(unixMilli(timer.At)) {
		return 0, err
	}
	return last.Sequence, err
}

// Offered reports whether a job has an item of any class, in whatever hands it is: in the
// mailbox of a node, or if that is "" in its queue. The leader answers.
func (w *Work) Offered(ctx context.Context, node, queue, local string) (bool, error) {
	last, err := w.last(ctx, node, queue, local)
	return last.Sequence > 0, err
}

// OfferedAt is Offered for an item that was offered at a revision of the job, or a
// later one.
func (w *Work) OfferedAt(ctx context.Context, node, queue, local string, revision uint64) (bool, error) {
	last, err := w.last(ctx, node, queue, local)
	return last.Sequence > 0 && number(last, revisionHeader) >= revision, err
}

// Holds reports whether the item of a delivery is still there, in whatever hands it
// is by now. The leader answers.
func (w *Work) Holds(ctx context.Context, d *Delivery) (bool, error) {
	_, err := w.pub.Message(ctx, d.Stream, publish.Query{Sequence: d.Sequence})
	if publish.Gone(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("streams: look for the item of %s.%s: %w", d.Queue, d.Local, err)
	}
	return true, nil
}

// home returns in which stream, and on which subjects, the items of a job lie.
func (w *Work) home(node, queue, local string) (stream, subject string) {
	if node != "" {
		return w.ns.MailStream(), w.ns.MailSubject(node, queue, local)
	}
	return w.ns.WorkStream(), w.ns.WorkSubject(queue, "*", local)
}

// last returns the newest item of a job.
func (w *Work) last(ctx context.Context, node, queue, local string) (publish.Message, error) {
	stream, subject := w.home(node, queue, local)
	last, err := find(ctx, w.pub, stream, subject)
	if err != nil {
		return publish.Message{}, fmt.Errorf("streams: look for the item of %s.%s: %w", queue, local, err)
	}
	return last, nil
}

// number reads a header of a message that is a number, or 0.
func number(m publish.Message, key string) uint64 {
	n, err := strconv.ParseUint(m.Header.Get(key), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// find asks the leader of a stream for the last message on a subject. It has no
// sequence if there is none.
func find(ctx context.Context, pub *publish.Publisher, stream, subject string) (publish.Message, error) {
	m, err := pub.Message(ctx, stream, publish.Query{Last: subject})
	if publish.Gone(err) {
		return publish.Message{}, nil
	}
	return m, err
}
