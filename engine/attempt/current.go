package attempt

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/machine"
)

// Current is the job that a handler runs. Its methods may be called at any time
// and by several goroutines; none of them waits for NATS.
type Current struct {
	// ID is the job's ID, <queue>.<local>.
	ID string
	// Kind names the handler.
	Kind string
	// Attempt counts the claims of the job, from 1.
	Attempt int
	// Fence grows from attempt to attempt. A store that remembers the largest
	// one that it has seen can refuse an attempt that was overtaken.
	Fence uint64
	// Node is the ID of this process among the nodes.
	Node string
	// Namespace is the installation that the job belongs to.
	Namespace string
	// Parent is the ID of the broadcast or sharded job that the job is a part of,
	// and Part is which: the node, or the number of the shard. They are empty for
	// other jobs.
	Parent, Part string
	// Shard is set if the job is a shard.
	Shard *Shard

	says *reporter // nil outside a handler
}

// Shard is one of the numbered pieces of a sharded job.
type Shard struct {
	Index     int    // from 0
	Total     int    // the same for all attempts at all shards of a job
	Parameter string // what the submit gave to it, if anything
}

type currentKey struct{}

// From returns the job that the handler with this context runs. It returns
// the zero value elsewhere.
func From(ctx context.Context) Current {
	current, _ := ctx.Value(currentKey{}).(Current)
	return current
}

// Logger returns a logger for what the handler has to say about the job. It
// writes to the logger of the engine, and from level info on to the job's log,
// which Engine.Logs reads.
func (c Current) Logger() *slog.Logger {
	if c.says == nil {
		return slog.Default()
	}
	return slog.New(slog.NewMultiHandler(c.process().Handler(), c.says.lines.Handler()))
}

// process returns the logger of the engine, for this job.
func (c Current) process() *slog.Logger {
	return c.says.runner.opts.Logger.With("job", c.ID, "kind", c.Kind, "attempt", c.Attempt)
}

// Say adds a line to the job's log, as it is: what a program has printed, for
// instance.
func (c Current) Say(line string) {
	if c.says == nil {
		slog.Default().Info("job says", "text", line)
		return
	}
	c.process().Info("job says", "text", line)
	c.says.lines.Say(line)
}

// maxNote is how long the note of a progress may be, in bytes.
const maxNote = 200

// Progress says how far the job is: done of total, which is 0 if nobody knows
// it, and a few words. It is shown by JobInfo within a second. Like
// [Current.Heartbeat] it is a sign of life.
func (c Current) Progress(done, total int64, note string) {
	if c.says == nil {
		return
	}
	at := c.says.runner.opts.Clock.Now()
	c.says.beat()
	c.says.say(machine.Report{Progress: &machine.Progress{Done: done, Total: total, Note: fault.Clip(note, maxNote), At: at}})
}

// MaxDetails is how large the details of a heartbeat may be, in bytes of JSON.
const MaxDetails = 8 << 10

// Heartbeat says that the attempt lives, for JobOptions.Heartbeat. Details are
// for the next attempt, which gets the last ones by [Current.Details]; they
// travel as JSON. With nil those from before stay, and nothing is stored. It
// returns an error if the details do not become JSON or are larger than
// [MaxDetails]; a sign of life it is all the same.
func (c Current) Heartbeat(details any) error {
	if c.says == nil {
		return nil
	}
	c.says.beat()
	if details == nil {
		return nil
	}
	data, err := json.Marshal(details)
	if err != nil {
		return fmt.Errorf("engine: heartbeat: details of type %T do not become JSON: %w", details, err)
	}
	if len(data) > MaxDetails {
		return fmt.Errorf("engine: heartbeat: the details have %d bytes, and up to %d are stored: put them elsewhere and leave a reference", len(data), MaxDetails)
	}
	c.says.say(machine.Report{Details: data})
	return nil
}

// Details reads what the attempts before this one left by [Current.Heartbeat],
// as far as it was stored: what was said in the last second before a node died
// may be lost. It returns false if there is nothing.
func (c Current) Details(into any) (bool, error) {
	if c.says == nil || len(c.says.claimed.Details) == 0 {
		return false, nil
	}
	if err := json.Unmarshal(c.says.claimed.Details, into); err != nil {
		return true, fmt.Errorf("engine: the details of the last attempt do not fit %T: %w", into, err)
	}
	return true, nil
}
