package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrNoConsumer is returned by [Puller.Pull], [Work.Load] and [Work.Held] if the
// consumer of the queue is not there: see [Work.Open].
var ErrNoConsumer = errors.New("streams: the queue has no consumer")

const (
	// MaxPull is the most items that one pull takes.
	MaxPull = 512

	// answerTime is how long after the end of a pull the server may say so.
	answerTime = 2 * time.Second
)

// Puller takes items of one class of a queue from the server, exactly as many as
// it is asked for. One goroutine uses it.
//
// It is not nats.go's Consume, which fetches ahead: an item in a client's
// buffer is an item that no idle worker can have.
type Puller struct {
	work  *Work
	queue string           // the name of the consumer
	back  chan nats.Status // the connection is there again

	inbox string
	sub   *nats.Subscription // to the inbox
	msgs  chan *nats.Msg
	pulls int  // counts the pulls, so that each has a subject of the inbox
	open  bool // the server may still answer the last pull
}

// Puller returns a new puller for a class of a queue, "" for the normal one, which
// has the items of all classes if the queue has a limit. It must be closed.
func (w *Work) Puller(queue, class string) (*Puller, error) {
	p := &Puller{work: w, queue: durable(queue, class)}
	if err := p.listen(); err != nil {
		return nil, err
	}
	p.back = w.pub.Conn().StatusChanged(nats.CONNECTED)
	return p, nil
}

// Pull takes up to n items, [MaxPull] at most, and gives each to take as it
// arrives. If the queue is empty it waits for the first one for as long as wait
// says; with wait 0 it takes what there is. It returns how many it took.
//
// A connection that was lost and is back ends the pull early, since the server
// has forgotten it then; so does a new leader of the queue's consumer.
func (p *Puller) Pull(ctx context.Context, n int, wait time.Duration, take func(*Delivery, error)) (taken int, err error) {
	n = min(n, MaxPull)
	if n <= 0 || ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	life := p.work.pub.Conn().Stats().Reconnects
	subject, err := p.ask(ctx, n, wait)
	if err != nil {
		return 0, err
	}
	silence := time.NewTimer(max(wait, 0) + answerTime)
	defer silence.Stop()
	for taken < n {
		select {
		case <-ctx.Done():
			return taken, context.Cause(ctx)
		case <-silence.C:
			return taken, nil
		case <-p.back:
			if p.work.pub.Conn().Stats().Reconnects != life { // and not before this pull
				return taken, nil
			}
		case msg := <-p.msgs:
			switch {
			case msg.Subject == subject:
				p.open = false
				return taken, p.end(msg)
			case !strings.HasPrefix(msg.Subject, p.inbox): // items keep the subject that they were stored under
				taken++
				take(p.work.parse(msg))
			}
		}
	}
	p.open = false
	return taken, nil
}

// ask sends the request for n items and returns the subject on which the server
// says how it ended.
func (p *Puller) ask(ctx context.Context, n int, wait time.Duration) (subject string, err error) {
	if p.open { // what comes for the last pull would be too much for this one
		if err := errors.Join(p.leave(ctx), p.listen()); err != nil {
			return "", err
		}
	}
	body := fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, n)
	if wait > 0 {
		body = fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, n, wait.Nanoseconds())
	}
	p.pulls++
	subject = p.inbox + "." + strconv.Itoa(p.pulls)
	next := p.work.pub.API("CONSUMER.MSG.NEXT." + p.work.ns.WorkStream() + "." + p.queue)
	if err := p.work.pub.Conn().PublishRequest(next, subject, body); err != nil {
		return "", fmt.Errorf("streams: ask for items of queue %s: %w", p.queue, err)
	}
	p.open = true
	return subject, nil
}

// end says what the status that ended a pull means.
func (p *Puller) end(msg *nats.Msg) error {
	status, why := msg.Header.Get("Status"), msg.Header.Get("Description")
	switch {
	case status == "404", status == "408", why == "Leadership Change":
		return nil
	case status == "503", why == "Consumer Deleted":
		return ErrNoConsumer
	}
	return fmt.Errorf("streams: pull from queue %s: %s %s", p.queue, status, why)
}

// Close ends the puller. Items that the server has sent already are handed
// back, so that others get them at once; ctx bounds the wait for the server.
func (p *Puller) Close(ctx context.Context) error {
	p.work.pub.Conn().RemoveStatusListener(p.back)
	return p.leave(ctx)
}

// listen makes a new inbox. Only one pull at a time is answered there, so its
// items always find room.
func (p *Puller) listen() error {
	nc := p.work.pub.Conn()
	p.inbox, p.msgs = nc.NewInbox(), make(chan *nats.Msg, 2*MaxPull)
	sub, err := nc.ChanSubscribe(p.inbox+".*", p.msgs)
	if err != nil {
		return fmt.Errorf("streams: listen for items of queue %s: %w", p.queue, err)
	}
	p.sub, p.open = sub, false
	return nil
}

// leave gives up the inbox, whereupon the server forgets what was asked for
// there, and hands back what arrived meanwhile.
func (p *Puller) leave(ctx context.Context) error {
	nc := p.work.pub.Conn()
	if !nc.IsConnected() {
		_ = p.sub.Unsubscribe() // fails only if the connection is closed, which ends it too
		return nil
	}
	done := make(chan struct{})
	closed := sync.OnceFunc(func() { close(done) })
	p.sub.SetClosedHandler(func(string) { closed() })
	err := p.sub.Drain()
	if err == nil {
		select {
		case <-done:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	for more := true; more; {
		select {
		case msg := <-p.msgs:
			if !strings.HasPrefix(msg.Subject, p.inbox) {
				err = errors.Join(err, msg.Respond(nakBody))
			}
		default:
			more = false
		}
	}
	if err != nil {
		return fmt.Errorf("streams: hand back items of queue %s: %w", p.queue, err)
	}
	return nil
}
