package kv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// maxMulti is how many messages the server returns for one multi-get.
	maxMulti = 1024

	// directPatience is how long a direct get waits for its next message.
	directPatience = 5 * time.Second
)

// errTooMany says that a multi-get has more than maxMulti results.
var errTooMany = errors.New("too many results")

// GetManyStale returns the values of those keys that have one, in the order of
// their revisions. Any replica answers: it is for lists and pages.
func (b *Bucket[T]) GetManyStale(ctx context.Context, keys []string) ([]Entry[T], error) {
	var list []Entry[T]
	for chunk := range slices.Chunk(keys, maxMulti) {
		subjects := make([]string, len(chunk))
		for i, key := range chunk {
			if err := checkKey(key); err != nil {
				return nil, b.failed("get", key, err)
			}
			subjects[i] = b.prefix + key
		}
		err := b.directAll(ctx, directGet{MultiLast: subjects}, b.collect(&list))
		if err != nil {
			return nil, b.failed("get", fmt.Sprintf("%d keys", len(keys)), err)
		}
	}
	return list, nil
}

// ListStale returns the values of all keys that match filter, which may have
// wildcards, in the order of their revisions. Any replica answers.
func (b *Bucket[T]) ListStale(ctx context.Context, filter string) ([]Entry[T], error) {
	var list []Entry[T]
	err := b.directAll(ctx, directGet{MultiLast: []string{b.prefix + filter}}, b.collect(&list))
	if errors.Is(err, errTooMany) {
		page := directGet{Seq: 1, NextBySubject: b.prefix + filter, Batch: maxMulti}
		err = b.directAll(ctx, page, b.collect(&list))
	}
	if err != nil {
		return nil, b.failed("list", filter, err)
	}
	return list, nil
}

// collect returns a function that adds what it is given to list, unless it is a
// marker or cannot be decoded.
func (b *Bucket[T]) collect(list *[]Entry[T]) func(stored) {
	return func(s stored) {
		if e, ok := b.value(s); ok {
			*list = append(*list, e)
		}
	}
}

// value returns s as an entry. It passes over markers, and over what cannot be
// decoded with a word in the log.
func (b *Bucket[T]) value(s stored) (Entry[T], bool) {
	if s.marker() {
		return Entry[T]{}, false
	}
	e, err := b.entry(s)
	if err != nil {
		b.log.Warn("value passed over", "bucket", b.name, "subject", s.subject, "err", err)
		return Entry[T]{}, false
	}
	return e, true
}

// directGet is a request to any replica for several messages.
type directGet struct {
	Seq           uint64   `json:"seq,omitempty"` // the first sequence to look at
	Batch         int      `json:"batch,omitempty"`
	NextBySubject string   `json:"next_by_subj,omitempty"`
	MultiLast     []string `json:"multi_last,omitempty"`
}

// directAll calls got with every message that fits, however many requests it
// takes.
func (b *Bucket[T]) directAll(ctx context.Context, get directGet, got func(stored)) error {
	for {
		last, more, err := b.direct(ctx, get, got)
		if err != nil || !more {
			return err
		}
		get.Seq = last + 1
	}
}

// direct makes one request and calls got with what comes, in the order of
// sequences. It returns the last sequence, and whether there are more behind it.
func (b *Bucket[T]) direct(ctx context.Context, get directGet, got func(stored)) (last uint64, more bool, err error) {
	request, err := json.Marshal(get)
	if err != nil {
		return 0, false, err
	}
	nc := b.pub.Conn()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return 0, false, err
	}
	if err := nc.PublishRequest("$JS.API.DIRECT.GET.KV_"+b.name, inbox, request); err != nil {
		return 0, false, err
	}
	for {
		msg, err := nextMsg(ctx, sub)
		if err != nil {
			return 0, false, err
		}
		if status := msg.Header.Get("Status"); status != "" {
			return get.end(status, msg, last)
		}
		s, err := parseDirect(msg)
		if err != nil {
			return 0, false, err
		}
		last = s.sequence
		got(s)
	}
}

// end says what the status at the end of the answers means.
func (g directGet) end(status string, msg *nats.Msg, last uint64) (uint64, bool, error) {
	const lostOne = "Message Not Found" // one that expired while a multi-get read the others
	description := msg.Header.Get("Description")
	switch {
	case status == "204":
		pending, err := strconv.ParseUint(msg.Header.Get("Nats-Num-Pending"), 10, 64)
		return last, pending > 0 && last > 0, err
	case status == "404" && (g.MultiLast == nil || description != lostOne):
		return last, false, nil
	case status == "413":
		return 0, false, errTooMany
	case status == "503":
		return 0, false, jetstream.ErrNoStreamResponse
	}
	return 0, false, fmt.Errorf("status %s %s", status, description)
}

func nextMsg(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, directPatience, nats.ErrTimeout)
	defer cancel()
	msg, err := sub.NextMsgWithContext(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return msg, err
}
