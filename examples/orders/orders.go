// Package orders is an example: a shop whose events start jobs.
//
// triggers.yaml says which events start which jobs, this file has the handlers,
// and events.jsonl is some minutes in the life of the shop. The demo runs all
// three:
//
//	millrace demo
//
// Start reading at [Handlers].
package orders

import (
	"context"
	_ "embed" // for the two files
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/engine"
)

// Triggers are the triggers of the shop, as millrace apply takes them.
//
//go:embed triggers.yaml
var Triggers []byte

// Events are events of the shop, as millrace demo --events takes them: one JSON
// object a line.
//
//go:embed events.jsonl
var Events []byte

// Handlers returns the jobs of the shop, for a worker.
func Handlers() []engine.Definition {
	return []engine.Definition{
		engine.NewJob("order.fulfil", fulfil),
		engine.NewJob("mail.confirm", confirm),
		engine.NewJob("payment.book", book, engine.JobOptions{Retry: engine.Retry{Delay: 300 * time.Millisecond}}),
		engine.NewJob("stock.return", restock),
	}
}

// Order is the data of an event on orders.created, and the input of its job.
type Order struct {
	ID       string  `json:"id"`
	Customer string  `json:"customer"`
	Items    int     `json:"items"`
	Total    float64 `json:"total"`
}

func fulfil(ctx context.Context, o Order) (string, error) {
	if err := work(ctx, time.Duration(o.Items)*80*time.Millisecond); err != nil {
		return "", err
	}
	return "packed for " + o.Customer, nil
}

// Mail is what the trigger confirmations makes of an order.
type Mail struct {
	To    string `json:"to"`
	Order string `json:"order"`
}

func confirm(ctx context.Context, m Mail) (string, error) {
	if err := work(ctx, 60*time.Millisecond); err != nil {
		return "", err
	}
	return "told " + m.To, nil
}

// Payment is the data of an event on payments.received.
type Payment struct {
	ID     string  `json:"id"`
	Order  string  `json:"order"`
	Amount float64 `json:"amount"`
	Bank   string  `json:"bank"`
}

// book fails once for payments from one bank: the engine tries again, soon.
func book(ctx context.Context, p Payment) (string, error) {
	if err := work(ctx, 200*time.Millisecond); err != nil {
		return "", err
	}
	if p.Bank == "Lakeside" && engine.JobFrom(ctx).Attempt == 1 {
		return "", errors.New("the bank does not answer")
	}
	return fmt.Sprintf("%.2f booked for %s", p.Amount, p.Order), nil
}

// Return is what the trigger returns makes of an event.
type Return struct {
	Parcel  string `json:"parcel"`
	Subject string `json:"subject"` // names the shop's branch: orders.<branch>.returned
}

func restock(ctx context.Context, r Return) (string, error) {
	if err := work(ctx, 120*time.Millisecond); err != nil {
		return "", err
	}
	branch, _, _ := strings.Cut(strings.TrimPrefix(r.Subject, "orders."), ".")
	return r.Parcel + " is back in " + branch, nil
}

// work stands for what takes time. It ends early when the job has to.
func work(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
