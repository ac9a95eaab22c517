package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/obs"
)

// SubmitOptions is what a submit says about its job. The zero value of a field
// means its default.
type SubmitOptions struct {
	// ID is the job's local ID, one subject token of up to 128 bytes:
	// submitting it again attaches to the job that is there. Default: a new
	// one that sorts by time.
	ID string
	// Queue is where the job waits. Default: as the definition says.
	Queue string
	// Class is the job's class of priority: [High], [Normal] or [Low]. Default:
	// as the definition says.
	Class Class
	// MaxAttempts is how many failures end the job. Default: as the
	// definition says.
	MaxAttempts int
	// Delay is how long the job waits before it may start, and At is when it
	// may, by the server's clock. Default: at once.
	Delay time.Duration
	At    time.Time
	// QueueTimeout is after how long the job fails if no attempt has started,
	// from when it may start. Default: never.
	QueueTimeout time.Duration
	// Deadline is after how long the job fails if it has not ended, from when
	// it may start. Default: never.
	Deadline time.Duration
	// Unique is a key that one job of the kind holds at a time. It excludes an ID.
	// Default: none.
	Unique Unique
	// Place says on which node the job runs. Default: any worker of its queue has
	// it.
	Place Place
	// Retry says how long to wait between attempts. Default: as the definition
	// says.
	Retry *Retry
	// Trace is the W3C trace context to hand on, by header name. Default: that
	// of the OpenTelemetry span in the context of the submit, if there is one.
	Trace map[string]string
}

// traceOf returns o with the trace of ctx, if o has none.
func (o SubmitOptions) traceOf(ctx context.Context) SubmitOptions {
	if o.Trace == nil {
		o.Trace = obs.Inject(ctx)
	}
	return o
}

// validate reports what is wrong with numbers and times.
func (o SubmitOptions) validate(kind string) error {
	var err error
	switch {
	case o.MaxAttempts < 0:
		err = fmt.Errorf("max attempts is %d: use 1 or more, or 0 for the default", o.MaxAttempts)
	case o.Delay < 0 || o.QueueTimeout < 0 || o.Deadline < 0:
		err = errors.New("a delay, queue timeout or deadline is negative: use a positive one, or 0 for none")
	case o.Delay > 0 && !o.At.IsZero():
		err = errors.New("there is both a delay and a time: use one of them")
	case !o.At.IsZero() && (o.At.Year() < 1970 || o.At.Year() > 9999):
		err = fmt.Errorf("the time %v is out of range: use the years 1970 to 9999", o.At)
	case checkClass(o.Class) != nil:
		err = checkClass(o.Class)
	case o.Retry != nil:
		err = o.Retry.Validate()
	}
	if err == nil {
		err = o.Place.validate()
	}
	if err == nil {
		err = o.Unique.withDefaults().validate()
	}
	if err != nil {
		return fmt.Errorf("engine: submit %s: %w", kind, err)
	}
	return nil
}

// plan sets the times of a new job.
func (o SubmitOptions) plan(j *machine.Job) {
	from := j.Created
	due := o.At
	if o.Delay > 0 {
		due = from.Add(o.Delay)
	}
	if due = machine.Millisecond(due); due.After(from) {
		j.State, j.Due, j.Wait = machine.Scheduled, due, machine.WaitDelay
		from = due
	}
	if o.QueueTimeout > 0 {
		j.StartBy = machine.Millisecond(from.Add(o.QueueTimeout))
	}
	if o.Deadline > 0 {
		j.Deadline = machine.Millisecond(from.Add(o.Deadline))
	}
}

// Class is a class of priority: [High], [Normal] or [Low], or "" for the default.
// Of the jobs for which a worker has a slot, those of a higher class start first;
// while all classes wait, 16 of 21 slots go to high, 4 to normal and 1 to low. A
// queue with a limit (concurrency) runs its jobs in order, whatever their class.
type Class = machine.Class

// The classes of priority.
const (
	High   = machine.High
	Normal = Class("normal")
	Low    = machine.Low
)

// checkClass refuses a class that does not exist.
func checkClass(c Class) error {
	switch c {
	case "", High, Normal, Low:
		return nil
	}
	return fmt.Errorf("class is %q: use high, normal or low", c)
}

// stored returns a class as records have it.
func stored(c Class) Class {
	if c == Normal {
		return ""
	}
	return c
}

// shown returns the class of a record as users see it.
func shown(c Class) string { return string(cmp.Or(c, Normal)) }

// Unique makes a job the only one of its kind that holds a key: whoever submits
// another one with that key meanwhile attaches to the job that is there, see
// [Handle.Created]. A job that is retried after it has ended does not take its key
// back.
type Unique struct {
	// Key is any text of up to 1,024 bytes, in UTF-8.
	Key string
	// Scope is for how long the job holds the key. Default: [WhileActive], or
	// [WithinPeriod] if there is a period.
	Scope Scope
	// Period is how long the key is held in scope [WithinPeriod], from when the
	// job is submitted: from a second to 100 years.
	Period time.Duration
}

// Scope is for how long a job holds its unique key.
type Scope = machine.Scope

// The scopes of unique keys.
const (
	WhilePending = machine.WhilePending // until its first attempt starts
	WhileActive  = machine.WhileActive  // until it has ended
	WithinPeriod = machine.WithinPeriod // for the period, whatever becomes of it
)

const (
	// maxKey bounds the keys, which are part of the records.
	maxKey = 1024
	// maxPeriod bounds the periods: the server forgets at once what it should keep
	// for more than two centuries.
	maxPeriod = 100 * 366 * 24 * time.Hour
)

func (u Unique) withDefaults() Unique {
	switch {
	case u.Key == "" || u.Scope != "":
	case u.Period != 0:
		u.Scope = WithinPeriod
	default:
		u.Scope = WhileActive
	}
	return u
}

func (u Unique) validate() error {
	known := u.Scope == WhilePending || u.Scope == WhileActive || u.Scope == WithinPeriod
	switch {
	case u == Unique{}:
		return nil
	case u.Key == "":
		return errors.New("there is a scope or a period without a unique key: say which key")
	case len(u.Key) > maxKey:
		return fmt.Errorf("the unique key has %d bytes: use up to %d", len(u.Key), maxKey)
	case !utf8.ValidString(u.Key): // the record would say another one
		return fmt.Errorf("the unique key %q is no UTF-8: encode it, in hex for instance", u.Key)
	case !known:
		return fmt.Errorf("the unique key has the scope %q: use %s, %s or %s", u.Scope, WhilePending, WhileActive, WithinPeriod)
	case u.Scope == WithinPeriod && (u.Period < time.Second || u.Period > maxPeriod):
		return fmt.Errorf("the unique key is held for a period of %v: use a second or more, up to 100 years", u.Period)
	case u.Scope != WithinPeriod && u.Period != 0:
		return fmt.Errorf("the unique key has a period, and the scope %s: leave one of them out", u.Scope)
	}
	return nil
}

// record returns what the record of a job says of its key.
func (u Unique) record(created time.Time) *machine.Unique {
	if u.Key == "" {
		return nil
	}
	held := &machine.Unique{Key: u.Key, Scope: u.Scope}
	if u.Scope == WithinPeriod {
		held.Until = created.Add(u.Period)
	}
	return held
}
