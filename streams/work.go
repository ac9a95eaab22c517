package streams

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
)

// Work is the work queue: what is ready to run, and the right to run it until
// somebody else gets it. An item that is not acknowledged comes back after the
// acknowledgement wait, which is the namespace's lease.
type Work struct {
	ns  Namespace
	pub *publish.Publisher
	js  jetstream.JetStream
}

// Item is a job that is ready to run: its record as it was at a revision.
type Item struct {
	Queue, Local string
	// Node is whose mailbox it lies in: no other may have it. Empty: any worker of
	// the queue.
	Node string
	// Class is [High] or [Low]. Anything else is the normal class, and is read
	// as "".
	Class    string
	Record   []byte
	Revision uint64
	// Due is the time for which the record says that it is due, to the
	// millisecond; zero for what was ready at once.
	Due time.Time
}

const (
	itemType       = "item"
	itemVersion    = 1
	revisionHeader = "Mr-Revision"
	dueHeader      = "Mr-Due"   // in milliseconds since 1970
	classHeader    = "Mr-Class" // in timers and mailboxes; items of a queue have it in their subject
	nodeHeader     = "Mr-Node"  // in timers; items of a mailbox have it in their subject
)

// NewWork returns the work queue of a namespace.
func NewWork(ns Namespace, pub *publish.Publisher) (*Work, error) {
	js, err := pub.JetStream()
	if err != nil {
		return nil, fmt.Errorf("streams: open work queue: %w", err)
	}
	return &Work{ns: ns, pub: pub, js: js}, nil
}

// Offer publishes an item. It may be offered more than once. One for a node takes
// the place of an earlier one of the same job in its mailbox.
func (w *Work) Offer(ctx context.Context, item Item) error {
	if _, err := w.pub.Publish(ctx, w.message(item)); err != nil {
		return fmt.Errorf("streams: offer %s.%s: %w", item.Queue, item.Local, err)
	}
	return nil
}

// OfferAsync publishes an item and calls done with the outcome, from a
// goroutine that it must not block.
func (w *Work) OfferAsync(item Item, done func(error)) {
	w.pub.PublishAsync(w.message(item), func(_ publish.Ack, err error) {
		if err != nil {
			err = fmt.Errorf("streams: offer %s.%s: %w", item.Queue, item.Local, err)
		}
		done(err)
	})
}

func (w *Work) message(item Item) *nats.Msg {
	h := Envelope{Type: itemType, Version: itemVersion}.Header()
	h[revisionHeader] = []string{strconv.FormatUint(item.Revision, 10)}
	if !item.Due.IsZero() {
		setDue(h, item.Due)
	}
	subject := w.ns.WorkSubject(item.Queue, class(item.Class), item.Local)
	if item.Node != "" {
		subject = w.ns.MailSubject(item.Node, item.Queue, item.Local)
		setClass(h, item.Class)
	}
	return &nats.Msg{Subject: subject, Header: h, Data: item.Record}
}

// setClass writes the class of an item that does not have it in its subject.
func setClass(h nats.Header, asked string) {
	if class(asked) != Class {
		h[classHeader] = []string{asked}
	}
}

// Withdraw deletes the items of a job, of whatever class, that were offered at a
// revision, or before, delivered ones included: those in the mailbox of a node, or
// if that is "" those of its queue. The items of another job stay that has the ID since.
func (w *Work) Withdraw(ctx context.Context, node, queue, local string, revision uint64) error {
	stream, subject := w.home(node, queue, local)
	for {
		last, err := find(ctx, w.pub, stream, subject)
		if err == nil && (last.Sequence == 0 || number(last, revisionHeader) > revision) {
			return nil
		}
		if err == nil {
			err = w.pub.Erase(ctx, stream, last.Sequence)
		}
		if err != nil {
			return fmt.Errorf("streams: withdraw %s.%s: %w", queue, local, err)
		}
	}
}

// Delivery is an item in the hands of a worker. One with a [Item.Node] comes from
// that node's mailbox.
type Delivery struct {
	Item
	// Stream and Sequence name the stored message.
	Stream   string
	Sequence uint64
	// Waiting is how many more items the queue held when this one left it.
	Waiting uint64

	reply string
	nc    *nats.Conn
	box   *Mailbox // that it comes from; nil if it comes from a queue
}

// The answers to a delivery, as JetStream knows them.
var (
	ackBody      = []byte("+ACK")
	nakBody      = []byte("-NAK")
	progressBody = []byte("+WPI")
)

// Ack says that the item is done with. It is not awaited: if it is lost, the
// item comes back and its record says that there is nothing to do. An item of a
// mailbox is deleted, which is awaited for a while.
func (d *Delivery) Ack() error {
	if d.box != nil {
		return d.box.erase(d)
	}
	return d.answer(ackBody)
}

// Nak hands the item back, to be delivered again after a delay. One of a mailbox
// stays there, and is looked at again.
func (d *Delivery) Nak(delay time.Duration) error {
	if d.box != nil {
		d.box.hand.Left(d.Sequence, delay)
		return nil
	}
	if delay <= 0 {
		return d.answer(nakBody)
	}
	return d.answer(fmt.Appendf(nil, `-NAK {"delay":%d}`, delay.Nanoseconds()))
}

// Progress holds off redelivery for another acknowledgement wait.
func (d *Delivery) Progress() error {
	if d.box != nil {
		d.box.hand.Kept(d.Sequence)
		return nil
	}
	return d.answer(progressBody)
}

func (d *Delivery) answer(body []byte) error {
	if err := d.nc.Publish(d.reply, body); err != nil {
		return fmt.Errorf("streams: answer delivery of %s.%s: %w", d.Queue, d.Local, err)
	}
	return nil
}

// parse reads a delivered message. What is not an item of ours is an error,
// but can still be answered.
func (w *Work) parse(msg *nats.Msg) (*Delivery, error) {
	d := &Delivery{reply: msg.Reply, nc: w.pub.Conn()}
	if err := d.parseReply(msg.Reply); err != nil {
		return d, err
	}
	item, ok := w.parseSubject(msg.Subject)
	if !ok {
		return d, fmt.Errorf("streams: read item: %q is no subject of the work queue", msg.Subject)
	}
	d.Item = item
	if _, err := Decode(msg.Header, msg.Data, itemType, itemVersion); err != nil {
		return d, err
	}
	if err := d.fill(msg.Header, msg.Data); err != nil {
		return d, fmt.Errorf("streams: read item %s.%s: %w", d.Queue, d.Local, err)
	}
	return d, nil
}

// parseSubject reads from the subject of an item the name of its job, and its class or
// whose mailbox it lies in.
func (w *Work) parseSubject(subject string) (Item, bool) {
	if tail, ok := strings.CutPrefix(subject, w.ns.subject("mail.")); ok {
		node, queue, local, ok := tokens(tail)
		return Item{Node: node, Queue: queue, Local: local}, ok
	}
	tail, ok := strings.CutPrefix(subject, w.ns.subject("work."))
	queue, of, local, ok2 := tokens(tail)
	item := Item{Queue: queue, Local: local}
	if class(of) != Class {
		item.Class = of
	}
	return item, ok && ok2
}

// tokens splits a text that has three, with dots between them.
func tokens(text string) (a, b, c string, ok bool) {
	a, rest, ok := strings.Cut(text, ".")
	b, c, ok2 := strings.Cut(rest, ".")
	return a, b, c, ok && ok2 && !strings.Contains(c, ".")
}

// fill reads what a message says about an item whose name is known.
func (i *Item) fill(h nats.Header, record []byte) error {
	revision, err := strconv.ParseUint(h.Get(revisionHeader), 10, 64)
	if err != nil {
		return fmt.Errorf("revision %q is no number", h.Get(revisionHeader))
	}
	due, ok := TimerAt(h)
	if !ok && h.Get(dueHeader) != "" {
		return fmt.Errorf("due time %q is no number", h.Get(dueHeader))
	}
	i.Record, i.Revision, i.Due = record, revision, due
	return nil
}

// parseReply reads the reply subject of a delivery, which is either
//
//	$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<time>.<pending>
//
// or has domain and account hash before the stream and a token more at the end.
func (d *Delivery) parseReply(reply string) error {
	var tokens [12]string
	n := 0
	for token := range strings.SplitSeq(reply, ".") {
		if n == len(tokens) {
			break
		}
		tokens[n] = token
		n++
	}
	at := 2
	if n > 9 {
		at = 4
	}
	if n < 9 || tokens[0] != "$JS" || tokens[1] != "ACK" {
		return fmt.Errorf("streams: read delivery: %q is no reply subject of JetStream", reply)
	}
	sequence, err := strconv.ParseUint(tokens[at+3], 10, 64)
	waiting, err2 := strconv.ParseUint(tokens[at+6], 10, 64)
	if err != nil || err2 != nil {
		return fmt.Errorf("streams: read delivery: %q is no reply subject of JetStream", reply)
	}
	d.Stream, d.Sequence, d.Waiting = tokens[at], sequence, waiting
	return nil
}
