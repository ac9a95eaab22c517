package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/publish"
)

// Mailbox is what lies ready for one node, as far as it is of one queue. No other
// node may have it, so it has no consumer: the server publishes each item that it
// stores once more, on the node's ring, whole. A ring can be missed, so whoever
// listens also looks. To delete an item is to acknowledge it.
//
// It is safe for concurrent use and holds no resources of its own.
type Mailbox struct {
	work        *Work
	node, queue string
	hand        Hand
}

// Hand hears what becomes of the items of a mailbox, by their sequences. Its methods
// must not block.
type Hand interface {
	// Done says that an item is gone.
	Done(sequence uint64)
	// Left says that an item stays where it is, and is to be looked at after a
	// delay.
	Left(sequence uint64, delay time.Duration)
	// Kept says that an item is still being worked on.
	Kept(sequence uint64)
}

const (
	// eraseTime bounds how long an acknowledgement waits for the server.
	eraseTime = 2 * time.Second
	// lookTime bounds one look.
	lookTime = 2 * time.Second
)

// Mailbox returns what lies ready for a node, of one queue. hand hears how its items
// are answered.
func (w *Work) Mailbox(node, queue string, hand Hand) *Mailbox {
	return &Mailbox{work: w, node: node, queue: queue, hand: hand}
}

// Hear calls ring with each item that is put into the mailbox, from a goroutine that
// it must not block, or with the error that makes it none of ours. The caller must
// call stop.
func (m *Mailbox) Hear(ring func(*Delivery, error)) (stop func(), err error) {
	sub, err := m.work.pub.Conn().Subscribe(m.work.ns.RingSubject(m.node, m.queue), func(msg *nats.Msg) {
		d, err := m.parse(msg.Header, msg.Data)
		if d.Sequence > 0 { // otherwise the server has not sent it
			ring(d, err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("streams: listen to the mailbox of %s: %w", m.node, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // which fails only if the connection is closed
}

// Look calls found with the items that lie in the mailbox from a sequence on, up to
// most of them, in the order of sequences, or with the error that makes one none of
// ours. It returns from where to look on, and whether something may be there. What
// it found before it failed counts.
//
// Any replica answers, so an item that was just stored may not be seen.
func (m *Mailbox) Look(ctx context.Context, from uint64, most int, found func(*Delivery, error)) (next uint64, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	subject := m.work.ns.MailSubject(m.node, m.queue, ">")
	get := direct.Get{MultiLast: []string{subject}, Seq: max(from, 1), Batch: most}
	got := 0
	take := func(msg publish.Message) {
		get.Seq = msg.Sequence + 1
		got++
		found(m.parse(msg.Header, msg.Data))
	}
	_, more, err = get.Page(ctx, m.work.pub, m.work.ns.MailStream(), take)
	if errors.Is(err, direct.ErrTooMany) {
		get.MultiLast, get.NextBySubject = nil, subject
		_, more, err = get.Page(ctx, m.work.pub, m.work.ns.MailStream(), take)
	}
	if errors.Is(err, direct.ErrLost) { // somebody was done with an item: the others come next
		return get.Seq, true, nil
	}
	if err != nil {
		return get.Seq, true, fmt.Errorf("streams: look into the mailbox of %s: %w", m.node, err)
	}
	return get.Seq, more && got > 0, nil
}

// parse reads a message as it was stored. What is not an item of this mailbox is an
// error, but can still be answered if it has a sequence.
func (m *Mailbox) parse(h nats.Header, data []byte) (*Delivery, error) {
	d := &Delivery{Stream: m.work.ns.MailStream(), box: m}
	if h.Get(jetstream.StreamHeader) != d.Stream {
		return d, fmt.Errorf("streams: read mail: it is of stream %q", h.Get(jetstream.StreamHeader))
	}
	sequence, err := strconv.ParseUint(h.Get(jetstream.SequenceHeader), 10, 64)
	subject := h.Get(jetstream.SubjectHeader)
	item, ok := m.work.parseSubject(subject)
	if err != nil || !ok || item.Node != m.node || item.Queue != m.queue {
		return d, fmt.Errorf("streams: read mail: %q under sequence %q is none of node %s and queue %s",
			subject, h.Get(jetstream.SequenceHeader), m.node, m.queue)
	}
	d.Item, d.Sequence = item, sequence
	return d, m.fill(d, h, data)
}

func (m *Mailbox) fill(d *Delivery, h nats.Header, data []byte) error {
	d.Class = h.Get(classHeader)
	if _, err := Decode(h, data, itemType, itemVersion); err != nil {
		return err
	}
	if err := d.Item.fill(h, data); err != nil {
		return fmt.Errorf("streams: read mail %s.%s: %w", d.Queue, d.Local, err)
	}
	return nil
}

// erase acknowledges an item. If it is gone, that is success. If the answer is lost
// the item may stay, and its record says that there is nothing to do.
func (m *Mailbox) erase(d *Delivery) error {
	ctx, cancel := context.WithTimeout(context.Background(), eraseTime) //nolint:forbidigo // an answer outlives what made it, and has no context
	defer cancel()
	if err := m.work.pub.Erase(ctx, d.Stream, d.Sequence); err != nil {
		return fmt.Errorf("streams: delete mail %s.%s: %w", d.Queue, d.Local, err)
	}
	m.hand.Done(d.Sequence)
	return nil
}
