package scheduler

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/timers/tick"
)

// The envelope of a cursor.
const (
	cursorType    = "cursor"
	cursorVersion = 1

	// dueHeader is when a schedule that rests is to be looked at again, in ms since
	// 1970, so that a new owner need not read more of it before. One that does not
	// rest has none.
	dueHeader = "Mr-Due"
	// revisionHeader is that of the definition by which it was found out.
	revisionHeader = "Mr-Revision"
)

// never is when a schedule is due that has no tick to come.
const never = 1<<62 - 1

// Cursors returns the cursors of a namespace, to be read: only the owner writes them.
func Cursors(pub *publish.Publisher, ns streams.Namespace) *kv.Bucket[tick.Cursor] {
	return kv.Open(pub, ns.Bucket(streams.Cursor), kv.Codec[tick.Cursor]{Decode: readCursor})
}

func readCursor(h nats.Header, data []byte) (c tick.Cursor, err error) {
	if _, err = streams.Decode(h, data, cursorType, cursorVersion); err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return c, fmt.Errorf("it is no cursor, so the schedule does not tick: unless a newer build wrote it, delete its key, and the schedule goes on by its definition: %w", err)
	}
	return c, nil
}

// written is a cursor as the owner writes it.
type written struct {
	tick.Cursor
	due int64 // see dueHeader; 0: it does not rest
}

var writtenCodec = kv.Codec[written]{
	Encode: func(w written) (nats.Header, []byte, error) {
		data, err := json.Marshal(w.Cursor)
		h := streams.Envelope{Type: cursorType, Version: cursorVersion}.Header()
		h[revisionHeader] = []string{strconv.FormatUint(w.Revision, 10)}
		if w.due != 0 {
			h[dueHeader] = []string{strconv.FormatInt(w.due, 10)}
		}
		return h, data, err
	},
	Decode: func(h nats.Header, data []byte) (w written, err error) {
		w.Cursor, err = readCursor(h, data)
		return w, err
	},
}

// head is what the headers of a cursor say. Those of a definition say nothing here.
type head struct {
	due      int64  // see dueHeader; 0: it does not rest
	revision uint64 // of the definition
}

// openHeads returns a bucket as its headers are.
func openHeads(pub *publish.Publisher, ns streams.Namespace, asset string) *kv.Bucket[head] {
	return kv.Open(pub, ns.Bucket(asset), kv.Codec[head]{Decode: func(h nats.Header, _ []byte) (head, error) {
		return readHead(h), nil
	}})
}

func readHead(h nats.Header) head {
	due, _ := strconv.ParseInt(h.Get(dueHeader), 10, 64) // 0 if it is none: it is looked at now
	revision, _ := strconv.ParseUint(h.Get(revisionHeader), 10, 64)
	return head{due, revision}
}
