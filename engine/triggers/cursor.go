package triggers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// cursor is where a trigger stands: its key in the cursor bucket. The consumer
// of the trigger follows from it and is made again if it is lost; so does what
// has to be captured.
type cursor struct {
	// The source.
	Subject string `json:"subject,omitempty"`
	Stream  string `json:"stream,omitempty"`
	Filter  string `json:"filter,omitempty"`
	// Go is set for a trigger that workers bring along, of a kind of jobs.
	Go  bool   `json:"go,omitempty"`
	Job string `json:"job,omitempty"`
	// Home is the stream that has the events, Created when it was made.
	Home    string    `json:"home"`
	Created time.Time `json:"created"`
	// Next is the first sequence that is not known to be handled.
	Next uint64 `json:"next"`
}

func cursorKey(trigger string) string { return "trigger." + trigger }

func (t *Triggers) cursors() *kv.Bucket[cursor] {
	return kv.Open(t.pub, t.ns.Bucket(streams.Cursor), kv.JSON[cursor](), kv.Options{Logger: t.log})
}

// allCursors reads the cursors of all triggers from the leader.
func (t *Triggers) allCursors(ctx context.Context, js jetstream.JetStream) (map[string]cursor, error) {
	stream, err := js.Stream(ctx, "KV_"+t.ns.Bucket(streams.Cursor))
	if err != nil {
		return nil, fmt.Errorf("look for the cursors: %w", err)
	}
	prefix := "$KV." + t.ns.Bucket(streams.Cursor) + "." + cursorKey("")
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("list the cursors: %w", err)
	}
	all := map[string]cursor{}
	for subject := range info.State.Subjects {
		trigger := strings.TrimPrefix(subject, prefix)
		c, err := t.cursors().Get(ctx, cursorKey(trigger))
		switch {
		case err == nil:
			all[trigger] = c.Value
		case !errors.Is(err, kv.ErrNotFound):
			return nil, err
		}
	}
	return all, nil
}

// of reports whether the cursor is that of r, and not of another trigger of
// the same name.
func (c cursor) of(r Rule) bool {
	return c.source() == r.Source && c.Go == (r.stored == 0) && (!c.Go || c.Job == r.Kind)
}

func (c cursor) source() Source { return Source{c.Subject, c.Stream, c.Filter} }

// setCursor writes a cursor in the place of the revision that was read, 0 for
// none.
func (t *Triggers) setCursor(ctx context.Context, trigger string, c cursor, revision uint64) error {
	if revision == 0 {
		_, err := t.cursors().Create(ctx, cursorKey(trigger), c)
		return err
	}
	_, err := t.cursors().Update(ctx, cursorKey(trigger), c, revision)
	return err
}
