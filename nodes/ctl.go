package nodes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/streams"
)

// What travels on mr.<ns>.ctl.<node>. Each message is JSON in an envelope.

// The type of requests to a node and of its replies.
const (
	ctlType    = "ctl"
	ctlVersion = 1
)

// What a node can be asked to do.
const (
	doRuns    = "runs"    // say whether it runs a job under a token
	doAlive   = "alive"   // say that it is there, and what it does
	doEnd     = "end"     // end the attempt that runs a job under a token
	doDrain   = "drain"   // take nothing new
	doUndrain = "undrain" // take again
	doLook    = "look"    // look into its mailbox
)

// request asks a node for something.
type request struct {
	Do    string `json:"do"`
	Job   string `json:"job,omitempty"`
	Token string `json:"token,omitempty"`
	Cause string `json:"cause,omitempty"` // why the attempt is to end
}

// reply is a node's answer.
type reply struct {
	Incarnation uint64 `json:"incarnation"` // 0 between two registrations
	Runs        bool   `json:"runs,omitempty"`
	Running     int    `json:"running,omitempty"`  // how many jobs it runs, for doAlive
	Draining    bool   `json:"draining,omitempty"` // it takes nothing new, for doAlive
	Error       string `json:"error,omitempty"`    // why there is no answer
}

// The type of what is told to the owner.
const (
	suspectType    = "suspect"
	suspectVersion = 1
)

// suspicion tells the owner of a node that did not answer for an incarnation
// that no verdict covers.
type suspicion struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
}

// suspectSubject is where the owner hears of suspicions. An ID of a node has no
// dot, so no node answers there.
func suspectSubject(ns streams.Namespace) string { return ns.CtlSubject("owner.suspect") }

// message puts body into an envelope, to be sent to subject.
func message(subject, typ string, version int, body any) (*nats.Msg, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("nodes: encode %s: %w", typ, err)
	}
	e := streams.Envelope{Type: typ, Version: version, Body: data}
	return &nats.Msg{Subject: subject, Header: e.Header(), Data: data}, nil
}

// decode reads a message of one type.
func decode[T any](msg *nats.Msg, typ string, newest int) (T, error) {
	var v T
	e, err := streams.Decode(msg.Header, msg.Data, typ, newest)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(e.Body, &v); err != nil {
		return v, fmt.Errorf("nodes: decode %s: %w", typ, err)
	}
	return v, nil
}

// patience is how long a node may take to answer.
const patience = time.Second

var (
	// errSilent says that nobody answers.
	errSilent = errors.New("nobody answers")
	// errLate says that somebody may listen, but does not answer.
	errLate = fmt.Errorf("%w in time", errSilent)
	// errRefused says that the node answers, but not what it was asked.
	errRefused = errors.New("it answered")
)

// call makes a request to the node that answers on subject. It returns
// errSilent if nobody does, at once or within wait, and errRefused if the node
// says why it cannot; any other error says nothing about the node.
func call(ctx context.Context, nc *nats.Conn, subject string, req request, wait time.Duration) (reply, error) {
	msg, err := message(subject, ctlType, ctlVersion, req)
	if err != nil {
		return reply{}, err
	}
	limited, cancel := context.WithTimeoutCause(ctx, wait, errLate)
	defer cancel()
	answer, err := nc.RequestMsgWithContext(limited, msg)
	switch {
	case err == nil:
		return readReply(answer)
	case errors.Is(err, nats.ErrNoResponders):
		return reply{}, errSilent
	case limited.Err() != nil:
		return reply{}, context.Cause(limited)
	}
	return reply{}, err
}

func readReply(msg *nats.Msg) (reply, error) {
	r, err := decode[reply](msg, ctlType, ctlVersion)
	if err == nil && r.Error != "" {
		err = fmt.Errorf("%w: %s", errRefused, r.Error)
	}
	return r, err
}
