package queues

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// stored is a definition as the config bucket holds it.
type stored struct {
	spec.Queue
	problem error // why it cannot be used, or nil
}

// The envelope of a definition.
const (
	queueType    = "queue"
	queueVersion = 1
	// typeHeader names the type of a message in its envelope.
	typeHeader = "Mr-Type"
)

// allKeys matches the keys of all definitions.
const allKeys = "queue.*"

func key(queue string) string { return spec.Queue{Name: queue}.Key() }

func open(pub *publish.Publisher, ns streams.Namespace, log *slog.Logger) *kv.Bucket[stored] {
	return kv.Open(pub, ns.Bucket(streams.Config), codec, kv.Options{Logger: log})
}

// codec reads definitions without ever failing for what they say, so that they
// can be shown, replaced and deleted.
var codec = kv.Codec[stored]{
	Encode: func(s stored) (nats.Header, []byte, error) {
		data, err := json.Marshal(s.Queue)
		return streams.Envelope{Type: queueType, Version: queueVersion}.Header(), data, err
	},
	Decode: func(h nats.Header, data []byte) (stored, error) { return readStored(h, data), nil },
}

// readStored reads a definition. One that people have put there by hand has no
// envelope.
func readStored(h nats.Header, data []byte) (s stored) {
	if h[typeHeader] != nil {
		if _, s.problem = streams.Decode(h, data, queueType, queueVersion); s.problem != nil {
			return s
		}
	}
	if err := json.Unmarshal(data, &s.Queue); err != nil {
		return stored{problem: fmt.Errorf("it is no queue in JSON: %w", err)}
	}
	s.problem = s.Validate()
	return s
}

// defined returns an entry as a definition, whose name is that of its key.
func defined(entry kv.Entry[stored]) Definition {
	queue := strings.TrimPrefix(entry.Key, key(""))
	d := Definition{entry.Value.Queue, entry.Value.problem}
	if d.Problem == nil && d.Name != queue {
		d.Problem = fmt.Errorf("its name is %q, another one than its key %s has", d.Name, entry.Key)
	}
	if d.Problem != nil {
		d.Queue = spec.Queue{Name: queue}
	}
	return d
}
