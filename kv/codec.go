package kv

import (
	"encoding/json"

	"github.com/nats-io/nats.go"
)

// Codec turns values into messages and back. What a reader needs without the
// body may be in the header.
type Codec[T any] struct {
	// Encode returns a message for a value. The bucket adds to the header, so
	// it must be a new one each time, or nil.
	Encode func(T) (nats.Header, []byte, error)

	// Decode returns the value of a message. It must not change the header,
	// which also has what the bucket added.
	Decode func(nats.Header, []byte) (T, error)
}

// JSON returns a codec that keeps values as JSON, without a header.
func JSON[T any]() Codec[T] {
	return Codec[T]{
		Encode: func(v T) (nats.Header, []byte, error) {
			data, err := json.Marshal(v)
			return nil, data, err
		},
		Decode: func(_ nats.Header, data []byte) (T, error) {
			var v T
			err := json.Unmarshal(data, &v)
			return v, err
		},
	}
}
