package scheduler

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// Stored is a definition as the config bucket holds it. Only people write it.
type Stored struct {
	spec.Schedule
	// Created is when this life of the name began: a schedule that is deleted and
	// defined again is another one. Ticks at or before Since are not due. Of either,
	// zero means the moment at which this very value was stored.
	Created, Since time.Time
	// Problem is why it cannot be read, or nil. Such a value is not to be written. Whether
	// what was read can be used, [Compile] says.
	Problem error
}

// The envelope of a definition.
const (
	scheduleType    = "schedule"
	scheduleVersion = 1
	// typeHeader names the type of a message in its envelope.
	typeHeader = "Mr-Type"

	createdHeader = "Mr-Created"
	sinceHeader   = "Mr-Since"
)

// allKeys matches the keys of all definitions in their bucket, and those of all
// cursors in theirs.
const allKeys = "schedule.*"

// Key returns the key of a schedule: of its definition in the config bucket, and of
// its cursor in the cursor bucket.
func Key(schedule string) string { return spec.Schedule{Name: schedule}.Key() }

func nameOf(key string) string { return strings.TrimPrefix(key, Key("")) }

// Bucket returns the definitions of a namespace. Reading one never fails for what it
// says, so that it can be shown, replaced and deleted.
func Bucket(pub *publish.Publisher, ns streams.Namespace, log *slog.Logger) *kv.Bucket[Stored] {
	return kv.Open(pub, ns.Bucket(streams.Config), definitionCodec, kv.Options{Logger: log})
}

var definitionCodec = kv.Codec[Stored]{
	Encode: func(s Stored) (nats.Header, []byte, error) {
		s.Revision = 0 // what an edit expects is not part of what it leaves
		data, err := json.Marshal(s.Schedule)
		h := streams.Envelope{Type: scheduleType, Version: scheduleVersion}.Header()
		for key, at := range map[string]time.Time{createdHeader: s.Created, sinceHeader: s.Since} {
			if !at.IsZero() {
				h[key] = []string{at.UTC().Format(time.RFC3339Nano)}
			}
		}
		return h, data, err
	},
	Decode: func(h nats.Header, data []byte) (Stored, error) { return readStored(h, data), nil },
}

// readStored reads a definition. One that people have put there by hand has no
// envelope.
func readStored(h nats.Header, data []byte) (s Stored) {
	if h[typeHeader] != nil {
		if _, s.Problem = streams.Decode(h, data, scheduleType, scheduleVersion); s.Problem != nil {
			return s
		}
	}
	if err := json.Unmarshal(data, &s.Schedule); err != nil {
		return Stored{Problem: fmt.Errorf("it is no schedule in JSON: %w", err)}
	}
	if s.Created, s.Problem = readTime(h, createdHeader); s.Problem == nil {
		s.Since, s.Problem = readTime(h, sinceHeader)
	}
	return s
}

func readTime(h nats.Header, key string) (time.Time, error) {
	text := h.Get(key)
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("its header %s is %q, which is no time: apply it again", key, text)
	}
	return at, nil
}
