package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// Report is what a look at all jobs has brought.
type Report struct {
	// Looked is how many jobs there are that have not ended.
	Looked int `json:"looked"`
	// Healed is how many jobs lacked what.
	Healed map[store.Lack]int `json:"healed"`
	// Total is the same since the owner became it, this look included: it looks
	// all the time by itself.
	Total map[store.Lack]int `json:"total"`
	// Consumers is how many queues had no consumer, or one that delivered
	// nothing.
	Consumers int `json:"consumers"`
	// Waiting is how many jobs are looked at again soon: their nodes have not
	// answered or are to end them, or they could not be looked at.
	Waiting int `json:"waiting"`
}

func newReport() Report { return Report{Healed: make(map[store.Lack]int)} }

// The envelope of requests to the owner and of its replies.
const (
	askType    = "reconcile"
	askVersion = 1
	// maxAsks is how many requests wait at the same time.
	maxAsks = 64
)

// reply is what the owner answers.
type reply struct {
	Report Report `json:"report"`
	Error  string `json:"error,omitempty"` // why there is no report
}

// errOver is what those are told who asked an owner that is it no more.
var errOver = errors.New("the owner has changed: ask again")

// askSubject is where the owner hears of requests. An ID of a node has no dot, so
// no node answers there.
func askSubject(ns streams.Namespace) string { return ns.CtlSubject("owner.reconcile") }

// Ask lets the owner look at all jobs that were stored more than ten seconds ago,
// and make up for what they lack. It waits for that as long as ctx allows.
func Ask(ctx context.Context, pub *publish.Publisher, ns streams.Namespace) (Report, error) {
	msg := &nats.Msg{Subject: askSubject(ns), Header: streams.Envelope{Type: askType, Version: askVersion}.Header()}
	answer, err := pub.Conn().RequestMsgWithContext(ctx, msg)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return Report{}, fmt.Errorf("reconcile: ask the owner of namespace %s: there is none now: run `millrace serve` or a worker, or ask again", ns)
	case err != nil:
		return Report{}, fmt.Errorf("reconcile: ask the owner of namespace %s: %w", ns, err)
	}
	e, err := streams.Decode(answer.Header, answer.Data, askType, askVersion)
	if err != nil {
		return Report{}, fmt.Errorf("reconcile: read the owner's answer: %w", err)
	}
	var r reply
	if err := json.Unmarshal(e.Body, &r); err != nil {
		return Report{}, fmt.Errorf("reconcile: read the owner's answer: %w", err)
	}
	if r.Error != "" {
		return Report{}, fmt.Errorf("reconcile: ask the owner of namespace %s: %s", ns, r.Error)
	}
	return r.Report, nil
}

// answer tells those who asked what has come out.
func answer(asked []*nats.Msg, report Report) { respond(asked, reply{Report: report}) }

// dismiss tells those who asked that there will be no report.
func dismiss(asked []*nats.Msg) { respond(asked, reply{Error: errOver.Error()}) }

// respond sends a reply. It may be lost, like the request: who asked gives up
// after a while.
func respond(asked []*nats.Msg, r reply) {
	body, _ := json.Marshal(r) // numbers and strings always have a JSON
	for _, ask := range asked {
		_ = ask.RespondMsg(&nats.Msg{Header: streams.Envelope{Type: askType, Version: askVersion}.Header(), Data: body})
	}
}
