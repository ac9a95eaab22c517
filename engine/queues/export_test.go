package queues

import (
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/kv"
)

// ReadStored returns what a message under queue.a says.
func ReadStored(data []byte, kind string) Definition {
	h := nats.Header{}
	if kind != "" {
		h[typeHeader] = []string{kind}
	}
	return defined(kv.Entry[stored]{Key: "queue.a", Value: readStored(h, data)})
}
