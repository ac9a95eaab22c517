package streams

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// ErrNoConsumer is returned by [Puller.Pull] if the consumer of the queue is
// not there: see [Work.Serve].
var ErrNoConsumer = errors.New("streams: the queue has no consumer")

// MaxPull is the most items that one pull may ask for.
const MaxPull = 512

// Puller takes items of one queue from the server, exactly as many as it is
// asked for. One goroutine uses it.
//
// It is not nats.go's Consume, which fetches ahead: an item in a client's
// buffer is an item that no idle worker can have.
type Puller struct {
	work   *Work
	queue  string
	inbox  string
	pulls  int
	sub    *nats.Subscription
	msgs   chan *nats.Msg
	status chan nats.Status
}

// Puller returns a new puller for a queue. It must be closed.
func (w *Work) Puller(queue string) (*Puller, error) {
	nc := w.pub.Conn()
	p := &Puller{work: w, queue: queue, inbox: nc.NewInbox(), msgs: make(chan *nats.Msg, 4*MaxPull)}
	sub, err := nc.ChanSubscribe(p.inbox+".*", p.msgs)
	if err != nil {
		return nil, fmt.Errorf("streams: listen for items of queue %s: %w", queue, err)
	}
	p.sub = sub
	p.status = nc.StatusChanged(nats.CONNECTED)
	return p, nil
}

// Pull asks for up to n items and gives each to take as it arrives. If the
// queue is empty it waits for the first one for as long as wait says; with
// wait 0 it takes what there is. It returns how many it took.
//
// A connection that breaks, or that was new, ends the pull early: the server
// has forgotten it then.
func (p *Puller) Pull(ctx context.Context, n int, wait time.Duration, take func(*Delivery, error)) (taken int, err error) {
	token, err := p.ask(min(n, MaxPull), wait)
	if err != nil {
		return 0, err
	}
	silence := time.NewTimer(wait + 2*time.Second)
	defer silence.Stop()
	for taken < n {
		select {
		case <-ctx.Done():
			return taken, context.Cause(ctx)
		case <-silence.C:
			return taken, nil
		case <-p.status:
			return taken, nil
		case msg := <-p.msgs:
			if len(msg.Data) == 0 && msg.Header.Get("Status") != "" {
				if done, err := p.ends(msg, token); done || err != nil {
					return taken, err
				}
				continue
			}
			taken++
			take(p.work.parse(msg))
		}
	}
	return taken, nil
}

// ask sends the request for n items and returns the token that its statuses
// carry.
func (p *Puller) ask(n int, wait time.Duration) (token string, err error) {
	p.pulls++
	token = strconv.Itoa(p.pulls)
	body := fmt.Appendf(nil, `{"batch":%d,"no_wait":true}`, n)
	if wait > 0 {
		body = fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, n, wait.Nanoseconds())
	}
	subject := "$JS.API.CONSUMER.MSG.NEXT." + p.work.ns.WorkStream() + "." + p.queue
	if err := p.work.pub.Conn().PublishRequest(subject, p.inbox+"."+token, body); err != nil {
		return "", fmt.Errorf("streams: ask for items of queue %s: %w", p.queue, err)
	}
	return token, nil
}

// ends reports whether a status ends the pull that token names.
func (p *Puller) ends(msg *nats.Msg, token string) (bool, error) {
	if !strings.HasSuffix(msg.Subject, "."+token) {
		return false, nil // of an earlier pull
	}
	switch status := msg.Header.Get("Status"); status {
	case "100":
		return false, nil
	case "404", "408":
		return true, nil
	case "503":
		return true, ErrNoConsumer
	default:
		why := msg.Header.Get("Description")
		if strings.Contains(strings.ToLower(why), "consumer deleted") {
			return true, ErrNoConsumer
		}
		return true, fmt.Errorf("streams: pull from queue %s: %s %s", p.queue, status, why)
	}
}

// Close ends the puller. Items that the server has sent already are handed
// back, so that others get them at once; ctx bounds the wait for the server.
func (p *Puller) Close(ctx context.Context) error {
	nc := p.work.pub.Conn()
	nc.RemoveStatusListener(p.status)
	if !nc.IsConnected() {
		return p.sub.Unsubscribe()
	}
	err := p.sub.Drain()
	if err == nil {
		err = nc.FlushWithContext(ctx)
	}
	for {
		select {
		case msg := <-p.msgs:
			if strings.HasPrefix(msg.Reply, "$JS.ACK.") {
				err = errors.Join(err, msg.Respond(nakBody))
			}
		default:
			return err
		}
	}
}
