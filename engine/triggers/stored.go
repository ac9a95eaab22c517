package triggers

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// stored is the definition of a trigger as the config bucket holds it.
type stored struct {
	spec.Trigger
	// problem is why it cannot be used: it was not written by Apply, or by a
	// newer build. It is nil otherwise.
	problem error
	raw     []byte // what it says then
	header  nats.Header
}

func definitionKey(trigger string) string { return spec.Trigger{Name: trigger}.Key() }

// The envelope of a stored trigger.
const (
	triggerType    = "trigger"
	triggerVersion = 1
)

// definitions are the triggers in the config bucket.
func (t *Triggers) definitions() *kv.Bucket[stored] {
	return kv.Open(t.pub, t.ns.Bucket(streams.Config), storedCodec(), kv.Options{Logger: t.log})
}

// storedCodec reads definitions without ever failing for what they say, so that
// they can be shown and deleted. One with a problem is written as it was.
func storedCodec() kv.Codec[stored] {
	return kv.Codec[stored]{
		Encode: func(s stored) (nats.Header, []byte, error) {
			if s.problem != nil {
				return s.header, s.raw, nil
			}
			data, err := json.Marshal(s.Trigger)
			return streams.Envelope{Type: triggerType, Version: triggerVersion}.Header(), data, err
		},
		Decode: func(h nats.Header, data []byte) (stored, error) { return readStored(h, data), nil },
	}
}

// readStored reads a definition. One that people have put there by hand has no
// envelope.
func readStored(h nats.Header, data []byte) stored {
	s := stored{raw: data, header: nats.Header{}}
	if kind := h[typeHeader]; kind != nil {
		s.header[typeHeader] = kind
		if _, s.problem = streams.Decode(h, data, triggerType, triggerVersion); s.problem != nil {
			return s
		}
	}
	if err := json.Unmarshal(data, &s.Trigger); err != nil {
		s.problem = fmt.Errorf("it is no trigger in JSON: %w", err)
		return s
	}
	s.problem = s.Trigger.Validate()
	return s
}

// typeHeader names the type of a message in its envelope.
const typeHeader = "Mr-Type"

// usable reports what is wrong with a stored definition.
func usable(entry kv.Entry[stored]) error {
	s := entry.Value
	if s.problem == nil && s.Key() != entry.Key {
		return fmt.Errorf("its name is %q, another one than its key %s has", s.Name, entry.Key)
	}
	return s.problem
}
