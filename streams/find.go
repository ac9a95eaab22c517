package streams

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
)

// Has reports whether a timer is set: one of the same purpose, time and job. The
// leader answers.
func (t *Timers) Has(ctx context.Context, timer Timer) (bool, error) {
	sequence, err := t.find(ctx, timer)
	return sequence > 0, timer.failed("look for", err)
}

// find returns the sequence of a timer, or 0 if it is not set.
func (t *Timers) find(ctx context.Context, timer Timer) (uint64, error) {
	if err := timer.validate(); err != nil {
		return 0, err
	}
	return find(ctx, t.pub, t.ns.TimerStream(), t.subject(timer))
}

// Offered reports whether a job has an item, in whatever hands it is. The leader
// answers.
func (w *Work) Offered(ctx context.Context, queue, local string) (bool, error) {
	sequence, err := find(ctx, w.pub, w.ns.WorkStream(), w.ns.WorkSubject(queue, Class, local))
	if err != nil {
		return false, fmt.Errorf("streams: look for the item of %s.%s: %w", queue, local, err)
	}
	return sequence > 0, nil
}

// find asks the leader of a stream for the sequence of the last message on a
// subject. It returns 0 if there is none.
func find(ctx context.Context, pub *publish.Publisher, stream, subject string) (uint64, error) {
	request := struct {
		Last string `json:"last_by_subj"`
	}{subject}
	var answer struct {
		refusal
		Message struct {
			Sequence uint64 `json:"seq"`
		} `json:"message"`
	}
	err := ask(ctx, pub, "STREAM.MSG.GET."+stream, request, &answer)
	if kv.Gone(err) {
		return 0, nil
	}
	return answer.Message.Sequence, err
}
