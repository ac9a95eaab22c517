package streams

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
)

// refusal is the part of an answer of the JetStream API that says why not.
type refusal struct {
	Error *jetstream.APIError `json:"error"`
}

func (r refusal) refused() error {
	if r.Error == nil {
		return nil
	}
	return r.Error
}

// ask sends a request to the JetStream API and reads the answer. It fails at once
// if the connection breaks, unlike the calls of the client library.
func ask(ctx context.Context, pub *publish.Publisher, api string, request any, answer interface{ refused() error }) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	msg, err := pub.Request(ctx, pub.API(api), body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("%w: read answer: %w", publish.ErrUnknown, err)
	}
	return answer.refused()
}

// erase deletes the message of a stream that has a sequence. If it is gone, that
// is success. Where one message is to go this is cheaper than a purge.
func erase(ctx context.Context, pub *publish.Publisher, stream string, sequence uint64) error {
	request := struct {
		Sequence uint64 `json:"seq"`
		NoErase  bool   `json:"no_erase"`
	}{sequence, true}
	err := ask(ctx, pub, "STREAM.MSG.DELETE."+stream, request, &refusal{})
	if kv.Gone(err) {
		return nil
	}
	return err
}
