// Package blobs keeps values that are too large for the record of a job, in an
// object store.
//
// A blob is written once, under a name that nobody else uses, and never changed:
// so whoever cannot tell whether it was stored stores it again under another name.
// It belongs to one job, whose ID is the beginning of its name, and is of use only
// if the record of that job names it. Whoever stores a blob does so before it writes
// that record; what is left of one who died in between is found by [Blobs.List].
//
// The stream is laid out like an object store of the NATS client, so that its tools
// can look at it: chunks on one subject, and what they are on another. This package
// reads and writes it by itself, since the client makes a consumer for each read,
// leaves a message behind for each object that is deleted, and files chunks under
// names that nobody can tell the owner of when the upload was not completed.
//
// A record that names a blob has no time to live: its expiry is a timer, which makes
// it removing, and what it names goes before it. The owner sweeps what is left every
// hour, when it is an hour old and its job does not go on.
//
// Start reading at [Blobs.Put].
package blobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

var (
	// ErrMissing is returned for a blob that is not there.
	ErrMissing = errors.New("blobs: no such blob")

	// ErrBroken is returned for a blob of which not everything is there, or
	// something else.
	ErrBroken = errors.New("blobs: the blob is broken")

	// ErrDenied is returned if the user may not use the object store. Nothing came
	// of it.
	ErrDenied = errors.New("blobs: this user may not use the object store")
)

// Gone reports whether an error says that a blob cannot be had any more, however
// often it is asked for.
func Gone(err error) bool { return errors.Is(err, ErrMissing) || errors.Is(err, ErrBroken) }

const (
	// maxChunk is how many bytes go into one message.
	maxChunk = 128 << 10
	// inFlight is how many chunks are under way at once. A link has to take all
	// of them within the time in which a message has to be answered.
	inFlight = 8
	// maxAhead bounds the memory that is taken for a blob because it says that it is
	// that large.
	maxAhead = 64 << 20
	// readBatch is how many chunks one request asks for.
	readBatch = 64
	// tries is how often a blob is read that is not complete, with readPause in
	// between: the replica that answers may be behind, and a leader may be elected.
	tries     = 50
	readPause = 100 * time.Millisecond
)

// Blobs is the object store of a namespace. It is safe for concurrent use and holds
// no resources of its own.
type Blobs struct {
	pub    *publish.Publisher
	bucket string
	stream string
}

// Open returns the object store of a namespace whose assets are there.
func Open(pub *publish.Publisher, ns streams.Namespace) *Blobs {
	return &Blobs{pub: pub, bucket: ns.Bucket(streams.Blobs), stream: ns.BlobStream()}
}

// Name returns a new name for a blob of a job: <queue>.<local>.<time>-<random>.
func Name(job string, at time.Time) string {
	return job + "." + strconv.FormatInt(at.UnixMilli(), 10) + "-" + strings.ToLower(rand.Text()[:16])
}

// Owner returns the job that a name was made for, and when. It reports false for
// what is no name of a blob.
func Owner(blob string) (job string, at time.Time, ok bool) {
	dot := strings.LastIndexByte(blob, '.')
	if dot < 0 {
		return "", time.Time{}, false
	}
	ms, _, ok := strings.Cut(blob[dot+1:], "-")
	n, err := strconv.ParseInt(ms, 10, 64)
	if _, _, bad := name.SplitJobID(blob[:dot]); !ok || err != nil || bad != nil {
		return "", time.Time{}, false
	}
	return blob[:dot], time.UnixMilli(n), true
}

// info describes a blob, as the NATS client does.
type info struct {
	Name    string    `json:"name"`
	Options options   `json:"options"`
	Bucket  string    `json:"bucket"`
	NUID    string    `json:"nuid"` // the last tokens of the chunks' subject: the name
	Size    int       `json:"size"`
	ModTime time.Time `json:"mtime"`
	Chunks  int       `json:"chunks"`
	Digest  string    `json:"digest"`
}

type options struct {
	ChunkSize int `json:"max_chunk_size"`
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:])
}

func (b *Blobs) chunks(blob string) string { return "$O." + b.bucket + ".C." + blob }

func (b *Blobs) meta(blob string) string {
	return "$O." + b.bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(blob))
}

// Put stores a blob under a new name. After an error some of it may be there, or
// may come yet, and the name must not be used again.
//
// What it is, is stored when all of its chunks are: if the process dies before,
// there is no blob, and its chunks are listed.
func (b *Blobs) Put(ctx context.Context, blob string, data []byte) error {
	size := min(maxChunk, int(b.pub.Conn().MaxPayload())/2)
	u := upload{turn: make(chan struct{}, inFlight)}
	for chunk := range slices.Chunk(data, size) {
		if err := u.begin(ctx); err != nil {
			return b.failed("put", blob, err)
		}
		b.pub.PublishAsync(&nats.Msg{Subject: b.chunks(blob), Data: chunk}, u.done)
	}
	for range inFlight { // whoever has all turns knows that nothing is under way
		if err := u.begin(ctx); err != nil {
			return b.failed("put", blob, err)
		}
	}
	body, err := json.Marshal(info{
		Name: blob, Options: options{size}, Bucket: b.bucket, NUID: blob,
		Size: len(data), Chunks: (len(data) + size - 1) / size, Digest: digest(data),
	})
	if err == nil {
		_, err = b.pub.Publish(ctx, &nats.Msg{Subject: b.meta(blob), Data: body})
	}
	return b.failed("put", blob, err)
}

// upload is the chunks of a blob that are under way.
type upload struct {
	turn chan struct{} // a token for each
	mu   sync.Mutex
	err  error // of the first that failed
}

// begin waits until another chunk may leave. It returns what went wrong with one
// before.
func (u *upload) begin(ctx context.Context) error {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", publish.ErrUnknown, context.Cause(ctx))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

func (u *upload) done(_ publish.Ack, err error) {
	u.mu.Lock()
	if u.err == nil {
		u.err = err
	}
	u.mu.Unlock()
	<-u.turn
}

// Get returns a blob. It returns [ErrMissing] for one that is not there.
func (b *Blobs) Get(ctx context.Context, blob string) ([]byte, error) {
	for try := 1; ; try++ {
		data, err := b.get(ctx, blob)
		if !errors.Is(err, ErrBroken) || try == tries {
			return data, b.failed("get", blob, err)
		}
		select {
		case <-ctx.Done():
			return nil, b.failed("get", blob, context.Cause(ctx))
		case <-time.After(readPause):
		}
	}
}

// get reads what the blob is from the leader, and its chunks from any replica.
func (b *Blobs) get(ctx context.Context, blob string) ([]byte, error) {
	is, err := b.info(ctx, blob)
	if err != nil {
		return nil, err
	}
	data := bytes.NewBuffer(make([]byte, 0, min(is.Size, maxAhead)))
	request := direct.Get{Seq: 1, NextBySubject: b.chunks(blob), Batch: readBatch}
	err = request.All(ctx, b.pub, b.stream, func(m publish.Message) {
		if data.Len() <= is.Size {
			data.Write(m.Data)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case data.Len() != is.Size:
		return nil, fmt.Errorf("%w: it has %d of %d bytes", ErrBroken, data.Len(), is.Size)
	case digest(data.Bytes()) != is.Digest:
		return nil, fmt.Errorf("%w: its bytes are not those that were stored", ErrBroken)
	}
	return data.Bytes(), nil
}

// info returns what a blob is.
func (b *Blobs) info(ctx context.Context, blob string) (is info, err error) {
	m, err := b.pub.Message(ctx, b.stream, publish.Query{Last: b.meta(blob)})
	switch {
	case publish.Gone(err):
		return is, ErrMissing
	case err != nil:
		return is, err
	}
	if err := json.Unmarshal(m.Data, &is); err != nil || is.Size < 0 {
		return is, fmt.Errorf("%w: what it is cannot be read: %w", ErrBroken, err)
	}
	return is, nil
}

// Delete deletes a blob, or what is left of one. If the process dies in between, its
// chunks are listed. Deleting one that is not there does nothing.
func (b *Blobs) Delete(ctx context.Context, blob string) error {
	for _, subject := range []string{b.meta(blob), b.chunks(blob)} {
		if err := b.pub.Ask(ctx, "STREAM.PURGE."+b.stream, map[string]string{"filter": subject}, &publish.Refusal{}); err != nil {
			return b.failed("delete", blob, err)
		}
	}
	return nil
}

// List visits the names of all blobs, also of those that were not completed or not
// deleted entirely, until visit returns an error, which it returns.
func (b *Blobs) List(ctx context.Context, visit func(blob string) error) error {
	prefix := b.chunks("")
	for offset := 0; ; {
		var answer struct {
			publish.Refusal
			Total int `json:"total"`
			State struct {
				Subjects map[string]int `json:"subjects"`
			} `json:"state"`
		}
		request := map[string]any{"subjects_filter": prefix + ">", "offset": offset}
		if err := b.pub.Ask(ctx, "STREAM.INFO."+b.stream, request, &answer); err != nil {
			return fmt.Errorf("blobs: list %s: %w", b.stream, err)
		}
		for subject := range answer.State.Subjects {
			if err := visit(strings.TrimPrefix(subject, prefix)); err != nil {
				return err
			}
		}
		offset += len(answer.State.Subjects)
		if len(answer.State.Subjects) == 0 || offset >= answer.Total {
			return nil
		}
	}
}

// failed adds to err what was tried.
func (b *Blobs) failed(verb, blob string, err error) error {
	if err == nil {
		return nil
	}
	// The server tells that to the connection alone, and lets what it denied run
	// into its time-out.
	last := b.pub.Conn().LastError()
	unanswered := errors.Is(err, publish.ErrUnknown) || errors.Is(err, nats.ErrTimeout)
	if unanswered && errors.Is(last, nats.ErrPermissionViolation) && strings.Contains(last.Error(), b.bucket) {
		err = fmt.Errorf("%w: allow it the subjects $O.%s.> and those of the stream %s: %v", ErrDenied, b.bucket, b.stream, last) //nolint:errorlint // the time-out is no longer the reason
	}
	return fmt.Errorf("blobs: %s %s in %s: %w", verb, blob, b.bucket, err)
}
