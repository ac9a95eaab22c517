package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
)

// LastLine returns the sequence of the last line in the log of a job, or 0 if
// there is none. The leader answers.
func LastLine(ctx context.Context, pub *publish.Publisher, ns Namespace, id string) (uint64, error) {
	last, err := find(ctx, pub, ns.LogStream(), ns.LogSubject(id))
	if err != nil {
		return 0, fmt.Errorf("streams: look for the log of job %s: %w", id, err)
	}
	return last.Sequence, nil
}

// EraseLog deletes the lines of a job. If there are none, that is success, and
// so it does no harm to repeat it. A line that an attempt, which was overtaken,
// says later stays until it is too old.
func EraseLog(ctx context.Context, pub *publish.Publisher, ns Namespace, id string) error {
	request := struct {
		Filter string `json:"filter"`
	}{ns.LogSubject(id)}
	err := pub.Ask(ctx, "STREAM.PURGE."+ns.LogStream(), request, &publish.Refusal{})
	if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("streams: erase the log of job %s: %w", id, err)
	}
	return nil
}
