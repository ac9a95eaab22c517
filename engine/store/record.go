package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// The envelope of a record.
const (
	recordType    = "job"
	recordVersion = 1
)

// The headers of a record, so that scans need no bodies.
const (
	headerState       = "Mr-State"
	headerKind        = "Mr-Kind"
	headerNode        = "Mr-Node"
	headerIncarnation = "Mr-Incarnation"
	headerCancel      = "Mr-Cancel"
	headerDue         = "Mr-Due"      // these three in ms since 1970
	headerStartBy     = "Mr-Start-By" // while there was no attempt
	headerDeadline    = "Mr-Deadline"

	headerPin            = "Mr-Pin" // empty while there is no place
	headerPinIncarnation = "Mr-Pin-Incarnation"
	headerPinRule        = "Mr-Pin-Rule" // if other nodes may have it
	headerPinElse        = "Mr-Pin-Else"
	headerParent         = "Mr-Parent"

	headerTurn = "Mr-Turn" // the schedule for whose turn it waits
)

// timerHeaders tells of the timers that a record needs.
var timerHeaders = map[machine.Purpose]string{
	machine.Due: headerDue, machine.Outset: headerDue, machine.QueuedTimeout: headerStartBy, machine.Deadline: headerDeadline,
}

// How long a record stays after the job has ended.
const (
	keepSucceeded = 24 * time.Hour
	keepOthers    = 14 * 24 * time.Hour
	// minRetention is the shortest: whoever submits or waits may be slow.
	minRetention = 10 * time.Minute
)

// ErrUnreadable is returned for a record that this build cannot read: a newer
// build wrote it, or something else did. It is left alone.
var ErrUnreadable = errors.New("store: the record cannot be read")

// Codec stores jobs: the body is the job as JSON, the headers repeat what
// scans and tables want to know.
func Codec() kv.Codec[machine.Job] {
	return kv.Codec[machine.Job]{Encode: encode, Decode: decode}
}

func encode(j machine.Job) (nats.Header, []byte, error) {
	body := j.AppendJSON(make([]byte, 0, recordSize(j)))
	h := streams.Envelope{Type: recordType, Version: recordVersion, Trace: j.Trace}.Header()
	values := make([]string, 0, 14) // one allocation for all
	set := func(key, value string) {
		values = append(values, value)
		h[key] = values[len(values)-1 : len(values) : len(values)]
	}
	set(headerState, string(j.State))
	set(headerKind, j.Kind)
	if j.Lease != nil {
		set(headerNode, j.Lease.Node)
		set(headerIncarnation, strconv.FormatUint(j.Lease.Incarnation, 10))
	}
	if j.Cancel != nil {
		set(headerCancel, "1")
	}
	if j.Pin != nil {
		set(headerPin, j.Pin.Node)
		set(headerPinIncarnation, strconv.FormatUint(j.Pin.Incarnation, 10))
		set(headerPinElse, string(j.Pin.Else))
		if j.Pin.Rule != nil {
			set(headerPinRule, "1")
		}
	}
	if j.Parent != nil {
		set(headerParent, j.Parent.ID)
	}
	if j.Wait == machine.WaitTurn && j.Tick != nil {
		set(headerTurn, j.Tick.Schedule)
	}
	for _, timer := range needs(j) {
		set(timerHeaders[timer.Purpose], strconv.FormatInt(timer.At.UnixMilli(), 10))
	}
	return h, body, nil
}

// needs returns the timers that have to be there for j. For one that has ended
// there is none, and one that was told to end cannot be told more.
func needs(j machine.Job) []machine.Timer {
	if j.State.Final() || j.Cancel != nil {
		return nil
	}
	return j.Timers()
}

// recordSize is about how many bytes j takes, so that encoding allocates once.
func recordSize(j machine.Job) int {
	return 512 + len(j.Input) + len(j.Result) + 256*len(j.Attempts)
}

func decode(h nats.Header, body []byte) (machine.Job, error) {
	if _, err := streams.Decode(h, body, recordType, recordVersion); err != nil {
		return machine.Job{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return decodeBody(body)
}

func decodeBody(body []byte) (machine.Job, error) {
	var j machine.Job
	if err := json.Unmarshal(body, &j); err != nil {
		return machine.Job{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if err := j.Validate(); err != nil {
		return machine.Job{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return j, nil
}

// keep returns how the record of j is to be written: one that ended, and owns
// nothing else, expires, unless it goes with its parent.
func keep(j machine.Job) kv.WriteOptions {
	if !j.State.Final() || j.State == machine.Removing || j.Owns() || j.Parent != nil {
		return kv.WriteOptions{}
	}
	return kv.WriteOptions{TTL: wholeSeconds(j.Expires.Sub(j.Finished))}
}

// DefaultRetention is how long a record stays after its job has ended in a state,
// unless somebody says otherwise.
func DefaultRetention(_ string, s machine.State) time.Duration {
	if s == machine.Succeeded {
		return keepSucceeded
	}
	return keepOthers
}

// kept returns for how long the record of a job that has ended should stay.
func (s *Store) kept(j machine.Job) time.Duration {
	queue, _, _ := name.SplitJobID(j.ID) // a record whose ID is none has the default
	return max(s.retention(queue, j.State), minRetention)
}

// seal says when the record of a job that has ended goes. A unique key that is
// held for a period needs it for as long.
func (s *Store) seal(j *machine.Job, kept time.Duration) {
	j.Expires = j.Finished.Add(kept)
	if u := j.Unique; u != nil && u.Until.After(j.Expires) {
		j.Expires = u.Until
	}
}
