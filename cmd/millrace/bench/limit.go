package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// rawLimit moves the messages of jobs by hand, fully pipelined and without a
// thought: create the record, publish the item, deliver it, replace the record
// by the claim, replace that by the result, acknowledge. It is what the server
// and the client library allow, on streams of the same configuration.
type rawLimit struct {
	js      jetstream.JetStream
	pub     *publish.Publisher
	records string // subject prefix
	items   string // subject prefix
	bodies  [3][]byte
	work    jetstream.Stream
	sub     *nats.Subscription
	ask     func() error
	rounds  int

	done      atomic.Int64
	pulled    atomic.Int64
	fail      func(error)
	onceEnded chan struct{}
	target    int64
}

// The streams of the raw limit: no namespace has such a name.
const (
	rawRecords = "KV_mr_=raw_jobs"
	rawItems   = "mr_=raw_work"
)

// Sizes of the record beside its input, as the engine writes it: when it is
// created, claimed and finished.
const (
	rawCreated  = 170
	rawClaimed  = 440
	rawFinished = 480
	rawPull     = 500 // items in a pull
)

func newRawLimit(ctx context.Context, pub *publish.Publisher, js jetstream.JetStream, payload int) (*rawLimit, error) {
	ns := streams.Namespace(namespace)
	r := &rawLimit{js: js, pub: pub, records: "$KV.mr_=raw_jobs.bench.", items: "mr.=raw.work.bench.normal."}
	for i, size := range []int{rawCreated, rawClaimed, rawFinished} {
		r.bodies[i] = bytes.Repeat([]byte("x"), size+payload)
	}
	_, err := r.twin(ctx, "KV_"+ns.Bucket(streams.Jobs), rawRecords, "$KV.mr_=raw_jobs.>")
	if err == nil {
		r.work, err = r.twin(ctx, ns.WorkStream(), rawItems, "mr.=raw.work.>")
	}
	if err == nil {
		err = r.listen(ctx)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// twin makes a stream with the configuration of another.
func (r *rawLimit) twin(ctx context.Context, of, name, subject string) (jetstream.Stream, error) {
	original, err := r.js.Stream(ctx, of)
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w", of, err)
	}
	config := original.CachedInfo().Config
	config.Name, config.Subjects = name, []string{subject}
	if err := r.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, fmt.Errorf("delete stream %s of an earlier measurement: %w", name, err)
	}
	return r.js.CreateStream(ctx, config)
}

// listen makes the consumer and the subscription that its items come to.
func (r *rawLimit) listen(ctx context.Context) error {
	_, err := r.work.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "bench", FilterSubject: r.items + ">", AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: time.Minute, MaxDeliver: -1, MaxAckPending: -1,
	})
	if err != nil {
		return err
	}
	nc := r.pub.Conn()
	inbox := nc.NewInbox()
	r.sub, err = nc.Subscribe(inbox, r.deliver)
	if err != nil {
		return err
	}
	r.ask = func() error {
		return nc.PublishRequest(r.pub.API("CONSUMER.MSG.NEXT."+rawItems+".bench"), inbox, fmt.Appendf(nil, `{"batch":%d}`, rawPull))
	}
	return errors.Join(r.sub.SetPendingLimits(-1, -1), r.ask(), r.ask())
}

func (r *rawLimit) round(ctx context.Context, n int) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var once sync.Once
	r.rounds++
	r.fail = func(err error) { once.Do(func() { cancel(err) }) }
	r.onceEnded, r.target = make(chan struct{}), int64(n)
	r.done.Store(0)
	start := time.Now()
	for i := range n {
		if err := r.pub.Room(ctx); err != nil {
			return 0, context.Cause(ctx)
		}
		r.submit(strconv.Itoa(r.rounds) + "-" + strconv.Itoa(i))
	}
	select {
	case <-r.onceEnded:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	if err := emptied(ctx, r.work); err != nil {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// submit creates a record and then publishes its item.
func (r *rawLimit) submit(id string) {
	r.put(r.records+id, 0, r.bodies[0], func(revision uint64) {
		item := &nats.Msg{Subject: r.items + id, Data: r.bodies[0], Header: nats.Header{
			"Mr-Type": {"item/1"}, "Mr-Revision": {strconv.FormatUint(revision, 10)},
		}}
		r.pub.PublishAsync(item, func(_ publish.Ack, err error) {
			if err != nil {
				r.fail(err)
			}
		})
	})
}

// deliver claims and finishes the job of an item, and acknowledges it.
func (r *rawLimit) deliver(item *nats.Msg) {
	if item.Header.Get("Status") != "" {
		return
	}
	if r.pulled.Add(1)%rawPull == 0 {
		if err := r.ask(); err != nil {
			r.fail(err)
		}
	}
	revision, err := strconv.ParseUint(item.Header.Get("Mr-Revision"), 10, 64)
	if err != nil {
		r.fail(err)
		return
	}
	key := r.records + item.Subject[len(r.items):]
	r.put(key, revision, r.bodies[1], func(claimed uint64) {
		r.put(key, claimed, r.bodies[2], func(uint64) {
			if err := item.Respond([]byte("+ACK")); err != nil {
				r.fail(err)
			}
			if r.done.Add(1) == r.target {
				close(r.onceEnded)
			}
		})
	})
}

// put replaces the record at a revision and goes on with the new one.
func (r *rawLimit) put(subject string, revision uint64, body []byte, next func(uint64)) {
	msg := &nats.Msg{Subject: subject, Data: body, Header: nats.Header{
		"Mr-Type": {"job/1"}, "Mr-State": {"pending"}, "Mr-Kind": {"bench.noop"},
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)},
	}}
	r.pub.PublishAsync(msg, func(ack publish.Ack, err error) {
		if err != nil {
			r.fail(err)
			return
		}
		next(ack.Sequence)
	})
}

func (r *rawLimit) close() {
	_ = r.sub.Unsubscribe() // fails only on a closed connection
}
