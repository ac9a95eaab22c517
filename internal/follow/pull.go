package follow

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// read pulls and visits, one batch at a time, until something goes wrong.
func (s *session) read(ctx context.Context) error {
	n, length := s.Batch, s.stay()
	if s.Lag > 0 || s.Until > 0 {
		length = glance
	}
	for {
		got, err := s.pull(ctx, n, length)
		if err != nil {
			return err
		}
		if s.Lag > 0 && s.Until == 0 {
			n, length = s.next(n, got)
		}
	}
}

// next says what to pull if messages must grow old. What is fetched too early
// cannot be skipped any more when it is replaced, so a pull takes about as much
// as is visited within a tenth of the lag, and more only if all of it was old.
// When nothing is there, it waits for the first that comes.
func (s *session) next(n, got int) (int, span) {
	switch {
	case got == 0:
		return 1, s.stay()
	case s.waited > s.Lag/10:
		n = max(got/2, 1)
	case s.waited == 0:
		n = min(2*n, s.Batch)
	}
	return n, glance
}

// pull asks for up to n messages and visits them as they arrive. It returns how
// many there were.
func (s *session) pull(ctx context.Context, n int, length span) (got int, err error) {
	s.pulls++
	s.waited = 0
	end := s.inbox + "." + strconv.Itoa(s.pulls)
	body := fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, n, length.life, length.beat)
	next := s.pub.API("CONSUMER.MSG.NEXT." + s.Stream + "." + s.name)
	if err := s.nc.PublishRequest(next, end, body); err != nil {
		return 0, err
	}
	for got < n {
		msg, err := s.receive(ctx)
		if err != nil {
			return got, err
		}
		switch {
		case !strings.HasPrefix(msg.Subject, s.inbox): // messages keep the subject that they were stored under
			got++
			err = s.hear(ctx, msg)
		case msg.Header.Get("Status") == "100":
			err = s.beat(msg)
		case msg.Subject == end:
			return got, ended(msg)
		}
		if err != nil {
			return got, err
		}
		s.told = ""
	}
	return got, nil
}

// receive returns the next message, or why there is none.
func (s *session) receive(ctx context.Context) (*nats.Msg, error) {
	select {
	case msg := <-s.msgs:
		return msg, context.Cause(ctx)
	default:
	}
	s.quiet.Reset(s.silence())
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-s.quiet.C:
		return nil, errDeaf
	case msg := <-s.msgs:
		return msg, nil
	}
}

// hear takes a message: it visits it when it is old enough.
func (s *session) hear(ctx context.Context, msg *nats.Msg) error {
	meta, err := msg.Metadata()
	if err != nil {
		return err
	}
	s.heard++
	if meta.Sequence.Consumer != s.heard {
		return errGap
	}
	if meta.Sequence.Stream > s.target {
		return errComplete
	}
	if s.Lag > 0 {
		if err := s.ripen(ctx, meta.Timestamp); err != nil {
			return err
		}
	}
	err = s.visit(Message{
		Subject:  msg.Subject,
		Header:   msg.Header,
		Data:     msg.Data,
		Sequence: meta.Sequence.Stream,
		Time:     meta.Timestamp.UTC(),
		Pending:  meta.NumPending,
	})
	if err != nil {
		return refusal{err}
	}
	s.visited = meta.Sequence.Stream
	return s.reached(s.visited)
}

// ripen waits until what was stored at a time is old enough.
func (s *session) ripen(ctx context.Context, stored time.Time) error {
	for {
		wait := s.Lag - s.Now().Sub(stored)
		if wait <= 0 {
			return nil
		}
		wait = max(wait, time.Millisecond)
		s.waited += wait
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// beat takes what the server says about itself: what the consumer has delivered,
// and how far it has looked.
func (s *session) beat(msg *nats.Msg) error {
	heard, err := strconv.ParseUint(msg.Header.Get("Nats-Last-Consumer"), 10, 64)
	if err != nil {
		return fmt.Errorf("read heartbeat: %w", err)
	}
	position, err := strconv.ParseUint(msg.Header.Get("Nats-Last-Stream"), 10, 64)
	if err != nil {
		return fmt.Errorf("read heartbeat: %w", err)
	}
	if heard != s.heard {
		return errGap
	}
	return s.reached(position)
}

// ended says what the status that ended a pull means: nil if it just took its
// time.
func ended(msg *nats.Msg) error {
	status, why := msg.Header.Get("Status"), msg.Header.Get("Description")
	switch {
	case status == "408" && why == "Request Timeout":
		return nil
	case status == "503":
		return nats.ErrNoResponders
	}
	return fmt.Errorf("the server says %s %s", status, why)
}
