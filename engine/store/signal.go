package store

import (
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/streams"
)

// Signal tells the owner what a schedule has to know of one of its jobs, so that it
// need not look: it waits for a turn, or has ended. It may be lost, and may come twice
// or late.
type Signal struct {
	Schedule string        `json:"schedule"`
	ID       string        `json:"id"`
	State    machine.State `json:"state"` // scheduled: the job wants a turn
}

// signalEnvelope is what a signal travels in.
var signalEnvelope = streams.Envelope{Type: "signal", Version: 1}

// SignalSubject is where the owner hears of [Signal]s, on core NATS.
func SignalSubject(ns streams.Namespace) string { return ns.CtlSubject("owner.tick") }

// ReadSignal reads what was published on [SignalSubject].
func ReadSignal(msg *nats.Msg) (Signal, error) {
	var sig Signal
	if err := hear(msg, signalEnvelope, &sig); err != nil {
		return Signal{}, err
	}
	return sig, nil
}

// signal publishes what the schedule of a job has to know. Nobody may be there to
// hear it.
func (s *Store) signal(j machine.Job) error {
	return s.say(SignalSubject(s.ns), signalEnvelope, Signal{Schedule: j.Tick.Schedule, ID: j.ID, State: j.State})
}
