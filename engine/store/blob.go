package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

const (
	// Inline is up to how many bytes an input or a result is part of the record.
	// Larger ones are blobs, which the record names. A server that takes small
	// messages only has a smaller limit: see [Store.inline].
	Inline = 32 << 10
	// MaxValue is how many bytes an input or a result may have.
	MaxValue = 64 << 20

	// orphanAge is how old a blob is when it has to be named by the record of its
	// job, and stowFor how long a submit may take that stores one, so that nobody
	// deletes what is about to be named.
	orphanAge = time.Hour
	stowFor   = orphanAge / 2
)

var errSlow = fmt.Errorf("its input was stored %v ago, and may be deleted soon: submit it again", stowFor)

// inline is up to how many bytes a value is part of the record here: input, result
// and what happened to the job have to fit into one message.
func (s *Store) inline() int { return min(Inline, int(s.pub.Conn().MaxPayload())/4) }

// stow stores a value of a job as a new blob. What is left of one that failed is
// deleted, or swept later.
func (s *Store) stow(ctx context.Context, id string, value json.RawMessage) (*machine.Blob, error) {
	b := &machine.Blob{Name: blobs.Name(id, s.Clock.Now()), Size: len(value)}
	if err := s.blobs.Put(ctx, b.Name, value); err != nil {
		s.drop(ctx, b)
		return nil, err
	}
	return b, nil
}

// drop deletes a blob that no record names. It is of no use to anybody, so if that
// fails it is left to [Store.Sweep].
func (s *Store) drop(ctx context.Context, b *machine.Blob) {
	if err := s.blobs.Delete(ctx, b.Name); err != nil {
		s.log.DebugContext(ctx, "object stays until it is swept", "object", b.Name, "err", err)
	}
}

// names reports whether the record of j names a blob.
func names(j machine.Job, blob string) bool {
	return slices.ContainsFunc(owned(j), func(b *machine.Blob) bool { return b.Name == blob })
}

// owned returns the blobs that the record of j names.
func owned(j machine.Job) []*machine.Blob {
	var list []*machine.Blob
	for _, b := range []*machine.Blob{j.InputBlob, j.ResultBlob} {
		if b != nil {
			list = append(list, b)
		}
	}
	if j.Fan != nil && j.Fan.SharesBlob != nil {
		list = append(list, j.Fan.SharesBlob)
	}
	return list
}

// createStowed is create for a job whose input, or whose shares, may be too large for
// its record. The blobs come first: if the process dies before the record is there,
// nobody names them, and they are swept. So they are if nobody can tell whether a
// record may still land that names them; if another's record is there, or none can be,
// they are deleted at once.
func (s *Store) createStowed(ctx context.Context, j machine.Job, lost bool) (entry Entry, created bool, err error) {
	if len(j.Input) <= s.inline() && j.Fan == nil {
		return s.create(ctx, j, lost)
	}
	if err := s.Limits.Check(ctx); err != nil {
		return Entry{}, false, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, stowFor, errSlow)
	defer cancel()
	if j, err = s.lighten(ctx, j); err != nil {
		return Entry{}, false, err
	}
	entry, created, err = s.create(ctx, j, lost)
	for _, b := range owned(j) {
		if errors.Is(err, streams.ErrFull) || err == nil && !names(entry.Value, b.Name) {
			s.drop(ctx, b)
		}
	}
	return entry, created, err
}

// lighten returns a job that is to be created with blobs in the place of what is too
// large for its record.
func (s *Store) lighten(ctx context.Context, j machine.Job) (machine.Job, error) {
	stow := func(value json.RawMessage) (b *machine.Blob, err error) {
		for try := 0; ; try++ {
			b, err = s.stow(ctx, j.ID, value)
			if err == nil || !passing(err) || errors.Is(err, publish.ErrUnsent) || s.pause(ctx, try) != nil {
				return b, err
			}
		}
	}
	var err error
	if len(j.Input) > s.inline() {
		if j.InputBlob, err = stow(j.Input); err != nil {
			return j, err
		}
		j.Input = nil
	}
	if j.Fan == nil {
		return j, nil
	}
	shares, err := json.Marshal(j.Fan.Shares)
	if err != nil || len(shares) <= s.inline() {
		return j, err
	}
	fan := *j.Fan
	fan.Shares = nil
	if fan.SharesBlob, err = stow(shares); err != nil {
		return j, err
	}
	j.Fan = &fan
	return j, nil
}

// moveNaming is move for an event with a blob, or nil, that is to be named by the record.
// It is deleted if it is certain that the record does not name it.
func (s *Store) moveNaming(ctx context.Context, entry Entry, ev machine.Event, b *machine.Blob) (Entry, error) {
	now, err := s.move(ctx, entry, ev)
	refused := err != nil && !publish.Passing(err)
	if b != nil && !names(now.Value, b.Name) && (refused || now.Revision > entry.Revision) {
		s.drop(ctx, b) // otherwise the write may still land
	}
	return now, err
}

// storeOutcome is move for the outcome of an attempt whose result may be too large
// for the record. It puts the blob in its place in ev, which stays if the record has
// to be written again.
func (s *Store) storeOutcome(ctx context.Context, entry Entry, ev *machine.Event) (Entry, error) {
	done, ok := (*ev).(machine.Done)
	if !ok || len(done.Result) <= s.inline() {
		return s.move(ctx, entry, *ev)
	}
	b, err := s.stow(ctx, entry.Key, done.Result)
	if err == nil {
		done.Result, done.Blob = nil, b
		*ev = done
		return s.move(ctx, entry, done)
	}
	if closed(err) {
		return entry, err
	}
	now, gone := s.read(ctx, entry.Key) // NATS may be away, and somebody else have the job
	if gone != nil || !now.Value.Held(done.Token) || passing(err) {
		return now, gone
	}
	return now, err
}

// dropResult deletes the blob of an outcome that is decided, unless the record as it
// is stored names it.
func (s *Store) dropResult(ctx context.Context, ev machine.Event, stored Entry) {
	if done, ok := ev.(machine.Done); ok && done.Blob != nil && !names(stored.Value, done.Blob.Name) {
		s.drop(ctx, done.Blob)
	}
}

// Fetch returns a blob that a record names. It returns an error that wraps
// [blobs.ErrMissing] for one that is not there.
func (s *Store) Fetch(ctx context.Context, b *machine.Blob) (json.RawMessage, error) {
	data, err := s.blobs.Get(ctx, b.Name)
	if err != nil {
		return nil, fmt.Errorf("store: fetch %d bytes: %w", b.Size, err)
	}
	return data, nil
}

// Sweep deletes the blobs that are an hour old and that no record names, and returns
// how many: what was left by processes that died, or overtaken. Those of a job that
// goes on stay until it has ended, since an attempt may be about to name one.
//
// Whoever dies in between leaves the rest to the next one. Two at once do no harm.
func (s *Store) Sweep(ctx context.Context) (swept int, err error) {
	now := s.Clock.Now()
	err = s.blobs.List(ctx, func(blob string) error {
		job, at, ok := blobs.Owner(blob)
		if !ok || now.Sub(at) < orphanAge {
			return nil
		}
		entry, err := s.Get(ctx, job)
		switch j := entry.Value; {
		case errors.Is(err, ErrUnreadable):
			return nil
		case err != nil && !errors.Is(err, ErrNotFound):
			return err
		case err == nil && (!j.State.Final() || j.State == machine.Removing || names(j, blob)):
			return nil
		}
		swept++
		return s.blobs.Delete(ctx, blob)
	})
	if err != nil {
		return swept, fmt.Errorf("store: sweep objects: %w", err)
	}
	return swept, nil
}
