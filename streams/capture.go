package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
)

// Captured is the capture stream as it is.
type Captured struct {
	// Created tells this stream from one of the same name that was deleted.
	Created time.Time
	// Last is the sequence of the last event that it held before its subjects
	// were set.
	Last uint64
}

// SetCapture gives the capture stream its subjects, no two of which may
// overlap. It creates the stream, or deletes it if there are no subjects. The
// caller holds the bootstrap lease, and computes the subjects under it: a
// stream's configuration has no revision that would tell of other writers.
func SetCapture(ctx context.Context, ns Namespace, pub *publish.Publisher, subjects []string) (Captured, error) {
	js, err := pub.JetStream()
	if err != nil {
		return Captured{}, fmt.Errorf("streams: open JetStream: %w", err)
	}
	stream, err := js.Stream(ctx, ns.CaptureStream())
	var info *jetstream.StreamInfo
	switch {
	case err == nil:
		info = stream.CachedInfo()
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return Captured{}, fmt.Errorf("streams: look for stream %s: %w", ns.CaptureStream(), explain(err))
	}
	switch {
	case len(subjects) == 0 && info == nil:
		return Captured{}, nil
	case len(subjects) == 0:
		return Captured{}, endCapture(ctx, js, info)
	case info != nil && sameSubjects(info.Config.Subjects, subjects) && info.Config.Metadata[versionKey] == strconv.Itoa(Version):
		return Captured{info.Created, info.State.LastSeq}, nil
	}
	return putCapture(ctx, js, ns, subjects, info)
}

// putCapture creates the capture stream, or updates the one that is there.
func putCapture(ctx context.Context, js jetstream.JetStream, ns Namespace, subjects []string, before *jetstream.StreamInfo) (Captured, error) {
	leases, err := js.Stream(ctx, ns.bucketStream(Leases))
	if err != nil {
		return Captured{}, fmt.Errorf("streams: look how many replicas namespace %s has: %w", ns, explain(err))
	}
	config := complete(ns.Capture(subjects), leases.CachedInfo().Config.Replicas)
	put := js.CreateStream
	var last uint64
	if before != nil {
		put, last = js.UpdateStream, before.State.LastSeq
		config = keep(config, before.Config)
	}
	stream, err := put(ctx, config)
	var api *jetstream.APIError
	switch {
	case err == nil:
		return Captured{stream.CachedInfo().Created, last}, nil
	case errors.As(err, &api) && api.ErrorCode == codeOverlap:
		return Captured{}, fmt.Errorf("streams: capture %s: another stream has some of these subjects, and no two streams can: let the trigger read that stream (%w)",
			strings.Join(subjects, ", "), err)
	}
	return Captured{}, fmt.Errorf("streams: capture %s: %w", strings.Join(subjects, ", "), explain(err))
}

// codeOverlap says that a subject of a stream overlaps with another stream's.
const codeOverlap jetstream.ErrorCode = 10065

// endCapture deletes the capture stream. The second in which the stream was
// created is part of the IDs of the jobs that its events started, so it deletes
// no stream in that second: the next one might be created in it too.
func endCapture(ctx context.Context, js jetstream.JetStream, info *jetstream.StreamInfo) error {
	young := time.NewTimer(time.Second - info.TimeStamp.Sub(info.Created))
	defer young.Stop()
	select {
	case <-young.C:
	case <-ctx.Done():
		return fmt.Errorf("streams: delete stream %s: %w", info.Config.Name, context.Cause(ctx))
	}
	if err := js.DeleteStream(ctx, info.Config.Name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("streams: delete stream %s: %w", info.Config.Name, explain(err))
	}
	return nil
}

func sameSubjects(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// TriggerConsumer is the durable consumer through which the runners of a trigger
// share its events: those of a stream on subjects that match filter, all for an
// empty one, from a sequence on.
func (n Namespace) TriggerConsumer(trigger, filter string, from uint64) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable:       "mr_" + string(n) + "_" + trigger,
		Description:   "Millrace trigger " + trigger,
		FilterSubject: filter,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:   max(from, 1),
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       triggerAckWait,
		MaxAckPending: triggerAckPending,
		MaxDeliver:    -1,
		Metadata:      map[string]string{triggerKey: string(n) + "." + trigger},
	}
}

// IsTriggerConsumer reports whether a consumer is the trigger's. The names of
// two namespaces' triggers can be the same once they are joined.
func (n Namespace) IsTriggerConsumer(trigger string, config jetstream.ConsumerConfig) bool {
	return config.Metadata[triggerKey] == string(n)+"."+trigger
}

// IsGuest reports whether a consumer is that of a trigger of another namespace,
// which reads what this one captures: no two streams can have a subject.
func (n Namespace) IsGuest(config jetstream.ConsumerConfig) bool {
	trigger := config.Metadata[triggerKey]
	return trigger != "" && !strings.HasPrefix(trigger, string(n)+".")
}

const (
	// triggerKey names the trigger in a consumer's metadata.
	triggerKey = "millrace.trigger"
	// triggerAckWait is after how long an event goes to another runner.
	triggerAckWait = 30 * time.Second
	// triggerAckPending bounds the events that all runners of a trigger have in
	// hand.
	triggerAckPending = 4096
)
