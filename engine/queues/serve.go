package queues

import (
	"context"
	"errors"
	"fmt"
)

// Serve gives a queue the consumer that its definition asks for, or leaves the
// one that does. Workers call it when there is none, the owner on its patrol, and
// whoever changes a definition.
//
// The definition comes from the leader, never from a [Book], and it is read again
// afterwards: if it says something else now, the queue is served once more. So
// two who do it at once, with two definitions, leave behind the consumer of the
// later one: whichever of them shaped it last has then read the definition that
// it shaped it by, and whoever stores another one later shapes it later. A
// process that dies in between leaves the wrong consumer to the owner's next
// patrol, and so does a request that was lost and arrives late.
//
// A definition that cannot be read changes nothing: there may be a limit in it.
func (q *Queues) Serve(ctx context.Context, queue string) error {
	if err := q.serve(ctx, queue); err != nil {
		return fmt.Errorf("engine: serve queue %s: %w", queue, err)
	}
	return nil
}

func (q *Queues) serve(ctx context.Context, queue string) error {
	concurrency, err := q.Concurrency(ctx, queue)
	for err == nil {
		if err := q.shape(ctx, queue, concurrency); err != nil {
			return err
		}
		was := concurrency
		if concurrency, err = q.Concurrency(ctx, queue); err == nil && concurrency == was {
			return nil
		}
	}
	return err
}

// Concurrency returns how many jobs of a queue run at once by its definition, as
// the leader has it; 0 if nothing limits them. A definition that cannot be read is
// an error: there may be a limit in it.
func (q *Queues) Concurrency(ctx context.Context, queue string) (int, error) {
	d, err := q.get(ctx, queue)
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err == nil && d.Problem != nil:
		err = fmt.Errorf("%w: %w", ErrUnreadable, d.Problem)
	}
	return d.Concurrency, err
}
