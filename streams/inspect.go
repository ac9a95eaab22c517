package streams

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
)

// What follows is for those who want to know how an installation is. Nothing is
// decided by it.

// MinLevel is the level of the JetStream API that is needed: that of nats-server
// 2.12.
const MinLevel = minLevel

// Account asks JetStream about the account of a connection. The error is
// [jetstream.ErrJetStreamNotEnabled] or
// [jetstream.ErrJetStreamNotEnabledForAccount] if there is none.
func Account(ctx context.Context, pub *publish.Publisher) (*jetstream.AccountInfo, error) {
	var answer struct {
		publish.Refusal
		jetstream.AccountInfo
	}
	err := pub.Ask(ctx, "INFO", nil, &answer)
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		err = jetstream.ErrJetStreamNotEnabled
	}
	if err != nil {
		return nil, err
	}
	return &answer.AccountInfo, nil
}

// Asset is a stream of a namespace as it is.
type Asset struct {
	Name    string
	Info    *jetstream.StreamInfo // nil if it is not there
	Version int                   // of the assets, by which it was made
	// Changed names the settings that somebody has changed and on which Millrace
	// depends. It is known for streams of this build's version only.
	Changed []string
}

// Inspect asks for all streams of a namespace. The one of captured events is
// among them if it is there.
func Inspect(ctx context.Context, ns Namespace, pub *publish.Publisher) ([]Asset, error) {
	var assets []Asset
	for _, want := range append(ns.assets(), ns.Capture(nil)) {
		var answer struct {
			publish.Refusal
			jetstream.StreamInfo
		}
		err := pub.Ask(ctx, "STREAM.INFO."+want.Name, nil, &answer)
		missing := errors.Is(err, jetstream.ErrStreamNotFound)
		switch {
		case missing && want.Name == ns.CaptureStream():
			continue // nobody needs it
		case missing:
			assets = append(assets, Asset{Name: want.Name})
			continue
		case err != nil:
			return nil, fmt.Errorf("streams: look at stream %s: %w", want.Name, err)
		}
		a := Asset{Name: want.Name, Info: &answer.StreamInfo}
		a.Version, _ = strconv.Atoi(a.Info.Config.Metadata[versionKey]) // 0 for a stream of nobody's
		if a.Version == Version {
			a.Changed = changed(want, a.Info.Config)
		}
		assets = append(assets, a)
	}
	return assets, nil
}

// changed names the settings of a stream that are not as they should be.
func changed(want, is jetstream.StreamConfig) (names []string) {
	for _, setting := range []struct {
		name string
		same bool
	}{
		{"subjects", want.Subjects == nil || slices.Equal(want.Subjects, is.Subjects)},
		{"retention", want.Retention == is.Retention},
		{"discard", want.Discard == is.Discard},
		{"max_age", want.MaxAge == is.MaxAge},
		{"max_msgs_per_subject", max(want.MaxMsgsPerSubject, 0) == max(is.MaxMsgsPerSubject, 0)},
		{"no_ack", want.NoAck == is.NoAck},
		{"allow_direct", want.AllowDirect == is.AllowDirect},
		{"allow_msg_ttl", want.AllowMsgTTL == is.AllowMsgTTL},
		{"republish", want.RePublish == nil || is.RePublish != nil && *want.RePublish == *is.RePublish},
		{"sealed", !is.Sealed},
	} {
		if !setting.same {
			names = append(names, setting.name)
		}
	}
	return names
}

// Stored returns the settings of a namespace as they are stored, whatever their
// version. It returns [kv.ErrNotFound] if there are none.
func Stored(ctx context.Context, ns Namespace, pub *publish.Publisher) (Settings, error) {
	entry, err := kv.Open(pub, ns.Bucket(Config), kv.JSON[Settings]()).Get(ctx, settingsKey)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = kv.ErrNotFound
	}
	if err != nil {
		return Settings{}, fmt.Errorf("streams: read the settings of namespace %s: %w", ns, err)
	}
	return entry.Value, nil
}

// Backlog is what all consumers of a queue have to do.
type Backlog struct {
	Load
	// Again is how many items were delivered more than once and are not done
	// with.
	Again int
}

// Backlogs returns what is to be done in each queue that has a consumer.
func Backlogs(ctx context.Context, ns Namespace, pub *publish.Publisher) (map[string]Backlog, error) {
	queues := map[string]Backlog{}
	for offset := 0; ; {
		request := struct {
			Offset int `json:"offset"`
		}{offset}
		var page struct {
			publish.Refusal
			Total     int                       `json:"total"`
			Consumers []*jetstream.ConsumerInfo `json:"consumers"`
		}
		if err := pub.Ask(ctx, "CONSUMER.LIST."+ns.WorkStream(), request, &page); err != nil {
			return nil, fmt.Errorf("streams: list the consumers of stream %s: %w", ns.WorkStream(), err)
		}
		for _, c := range page.Consumers {
			tail, _ := strings.CutPrefix(c.Config.FilterSubject, ns.subject("work."))
			queue, _, ok := strings.Cut(tail, ".")
			if !ok {
				continue // somebody else's
			}
			b := queues[queue]
			b.Waiting += c.NumPending
			b.Taken += uint64(c.NumAckPending)
			b.Asking += c.NumWaiting
			b.Again += c.NumRedelivered
			queues[queue] = b
		}
		offset += len(page.Consumers)
		if len(page.Consumers) == 0 || offset >= page.Total {
			return queues, nil
		}
	}
}
