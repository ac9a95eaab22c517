package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/tick"
)

// ErrNoSchedule is returned for a schedule that is not defined.
var ErrNoSchedule = errors.New("no such schedule")

// Definitions reads what people have said about schedules, from the leader. It is
// safe for concurrent use and holds no resources.
type Definitions struct {
	stored *kv.Bucket[Stored]
	log    *slog.Logger
}

// OpenDefinitions returns the definitions of a namespace.
func OpenDefinitions(pub *publish.Publisher, ns streams.Namespace, log *slog.Logger) *Definitions {
	if log == nil {
		log = slog.Default()
	}
	return &Definitions{Bucket(pub, ns, log), log}
}

// errUnusable says that there is a definition and that it cannot be used.
var errUnusable = errors.New("the definition cannot be used")

// Load reads a definition from the leader. It returns [ErrNoSchedule] for one that is
// not there.
func (d *Definitions) Load(ctx context.Context, schedule string) (*tick.Definition, error) {
	entry, err := d.stored.Get(ctx, Key(schedule))
	switch {
	case errors.Is(err, kv.ErrNotFound):
		return nil, fmt.Errorf("scheduler: read schedule %s: %w", schedule, ErrNoSchedule)
	case err != nil:
		return nil, fmt.Errorf("scheduler: read schedule %s: %w", schedule, err)
	}
	def, err := Compile(entry)
	if err != nil {
		return nil, fmt.Errorf("scheduler: read schedule %s: %w: %w", schedule, errUnusable, err)
	}
	return def, nil
}

// Declines is asked before the first claim of a job that the clock made: it returns
// why the schedule does not let the job run, as it is now, or nil if it does. So
// whoever has paused, edited or deleted a schedule, and was told so, sees nothing
// start that he does not want.
//
// It is one read, and nothing is compared if the definition is the one by which the
// job was made. One that this build cannot read says nothing: whoever made the job
// could.
func (d *Definitions) Declines(ctx context.Context, j machine.Job) (*machine.Declined, error) {
	if j.Tick == nil {
		return nil, nil
	}
	entry, err := d.stored.Get(ctx, Key(j.Tick.Schedule))
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return nil, fmt.Errorf("scheduler: read schedule %s: %w", j.Tick.Schedule, err)
	}
	var def *tick.Definition // nil: it was deleted
	if err == nil {
		if entry.Revision == j.Tick.Revision {
			return nil, nil
		}
		if def, err = Compile(entry); err != nil {
			d.log.DebugContext(ctx, "a schedule that cannot be used keeps nobody from running its jobs", "job", j.ID, "err", err)
			return nil, nil
		}
	}
	code, why := def.Declines(j)
	if code == "" {
		return nil, nil
	}
	return &machine.Declined{Code: code, Why: why}, nil
}
