package store

import (
	"context"
	"errors"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// holder is what is stored under a unique key: the job that holds it. Its record may
// not be there yet.
type holder struct {
	ID string `json:"id"`
}

// keyMargin is for how much longer than its period a key is stored.
const keyMargin = time.Minute

// uniqueKey is where the unique key of a job lies: it is one among those of its kind.
func uniqueKey(j machine.Job) string {
	return "unique." + name.Token(j.Kind) + "." + name.Token(j.Unique.Key)
}

// holds reports whether j holds its unique key at a time.
func holds(j machine.Job, now time.Time) bool {
	switch j.Unique.Scope {
	case machine.WhilePending:
		return !j.State.Final() && j.Attempt == 0
	case machine.WithinPeriod:
		return now.Before(j.Unique.Until)
	default:
		return !j.State.Final()
	}
}

// sameKey reports whether two jobs are of the same unique key.
func sameKey(a, b machine.Job) bool {
	return a.Kind == b.Kind && a.Unique != nil && b.Unique != nil && a.Unique.Key == b.Unique.Key
}

// submitUnique is submit for a job with a unique key. The ID that it has is the one
// that it gets if nobody else's is in its place.
//
// The key names one ID, and a record is created under an ID that the key names, and
// no other. So of two submitters at once one gets the key, and both create the same
// record, which one of them does and to which the other attaches. Nobody waits for
// anybody:
//
//	the key is not there                    create it with a new ID, then the record
//	its record is not there                 write the key anew, same ID; then the record
//	its record holds the key                attach
//	its record has ended, or has started
//	(pending), or its period is over        write the key with a new ID, then the record
//
// The key is written by its revision, so whoever decides by what it read is the only
// one. Never two jobs in scope at once, and never none:
//
//   - Whoever dies, or is frozen, between the two writes leaves a key whose record is
//     not there, and the next submitter creates that. When the frozen one goes on, it
//     finds that record.
//   - It may find nothing, if that job has ended and was deleted meanwhile, and would
//     create a job whose key may be another's. So whoever has created the record reads
//     the key again before it offers the job: if the key does not name it any more,
//     nobody has seen the job, and it takes the record away, by its revision. If it
//     dies before, or its record lands when it is gone, [Store.Heal] does.
//   - A job that has ended frees the key ([Store.free]) if its record still says so,
//     by the revision that the key had before that was read. If there is a new life
//     under the same ID, the key was written anew before it began.
//   - Whoever read the key before it was freed finds the record ended, or gone, and
//     its write of the key fails: it begins again. Whoever attaches read, after it was
//     called, that the job held the key.
//   - A lost answer to a write of the key is settled by reading it: it names the
//     caller's ID or it does not. What lands later fails, by its revision, or writes a
//     key whose record is not there. The next submitter creates that one.
//
// A job that is redriven does not take its key back: there may be another by then.
func (s *Store) submitUnique(ctx context.Context, j machine.Job) (Entry, bool, error) {
	period := j.Unique.Until.Sub(j.Created)
	for try := 0; ; try++ {
		if j.Unique.Scope == machine.WithinPeriod {
			unique := *j.Unique
			unique.Until = s.Clock.Now().Add(period)
			j.Unique = &unique
		}
		entry, found, created, err := s.claimKey(ctx, j)
		if found || err != nil && !kv.Unknown(err) && !errors.Is(err, kv.ErrExists) {
			return entry, created, err
		}
		if closed(err) {
			return Entry{}, false, err
		}
		if err := s.pause(ctx, try); err != nil {
			return Entry{}, false, err
		}
	}
}

// claimKey is one try of submitUnique. It reports false if another is needed.
func (s *Store) claimKey(ctx context.Context, j machine.Job) (entry Entry, found, created bool, err error) {
	key := uniqueKey(j)
	held, err := s.keys.Get(ctx, key)
	switch {
	case errors.Is(err, kv.ErrNotFound):
		_, err = s.keys.Create(ctx, key, holder{j.ID}, keepKey(j))
	case err == nil && held.Value.ID != j.ID:
		entry, err = s.Get(ctx, held.Value.ID)
		switch {
		case errors.Is(err, ErrNotFound):
			j.ID = held.Value.ID
		case err != nil:
			return Entry{}, false, false, err
		case entry.Value.State == machine.Removing:
			return Entry{}, false, false, s.Owe(ctx, entry)
		case sameKey(entry.Value, j) && holds(entry.Value, s.Clock.Now()):
			return entry, true, false, nil
		}
		_, err = s.keys.Update(ctx, key, holder{j.ID}, held.Revision, keepKey(j))
	}
	if err != nil {
		return Entry{}, false, false, err
	}
	return s.fill(ctx, key, j)
}

// keepKey returns how the key of a job is to be written.
func keepKey(j machine.Job) kv.WriteOptions {
	if j.Unique.Scope != machine.WithinPeriod {
		return kv.WriteOptions{}
	}
	return kv.WriteOptions{TTL: wholeSeconds(j.Unique.Until.Sub(j.Created)) + keyMargin}
}

// fill creates the record that a key names, or attaches to it.
func (s *Store) fill(ctx context.Context, key string, j machine.Job) (entry Entry, found, created bool, err error) {
	entry, created, err = s.createStowed(ctx, j, false)
	if err != nil {
		return Entry{}, true, false, err
	}
	if !created {
		return entry, sameKey(entry.Value, j), false, nil
	}
	still, err := s.stillNames(ctx, key, j.ID)
	if err != nil || still {
		return entry, true, true, err
	}
	// It came too late. Whoever attached to it may have offered it, and it may run,
	// or have run.
	for try := 0; ; try++ {
		err = s.jobs.Remove(ctx, entry.Key, entry.Revision)
		if err == nil {
			break
		}
		if closed(err) || s.pause(ctx, try) != nil {
			return entry, true, true, err
		}
	}
	now, err := s.read(ctx, entry.Key)
	if !errors.Is(err, ErrNotFound) {
		return now, true, true, err
	}
	for _, b := range owned(entry.Value) {
		s.drop(ctx, b)
	}
	return Entry{}, false, false, nil
}

// landedLate reports whether the record of a job came to be when its key was another
// job's already. Whoever created it has died, or does not know that it landed, and
// nobody was given it: a job that has not started, for the first time, is named by its
// key if there is one.
func (s *Store) landedLate(ctx context.Context, j machine.Job) (bool, error) {
	started := j.Attempt > 0 || !j.Redriven.IsZero()
	if j.Unique == nil || j.Unique.Scope == machine.WithinPeriod || started || j.State.Final() {
		return false, nil
	}
	held, err := s.keys.Get(ctx, uniqueKey(j))
	if errors.Is(err, kv.ErrNotFound) {
		return false, nil
	}
	return err == nil && held.Value.ID != j.ID, err
}

// takeBack removes the record of a job that nobody was given. If the process dies in
// between, what the record named is swept.
func (s *Store) takeBack(ctx context.Context, entry Entry) error {
	if err := s.jobs.Remove(ctx, entry.Key, entry.Revision); err != nil {
		return err
	}
	for _, b := range owned(entry.Value) {
		s.drop(ctx, b)
	}
	return nil
}

// stillNames reports whether a key names a job, however long it takes to find out.
func (s *Store) stillNames(ctx context.Context, key, id string) (bool, error) {
	for try := 0; ; try++ {
		held, err := s.keys.Get(ctx, key)
		if err == nil || errors.Is(err, kv.ErrNotFound) {
			return err == nil && held.Value.ID == id, nil
		}
		if closed(err) {
			return false, err
		}
		if err := s.pause(ctx, try); err != nil {
			return false, err
		}
	}
}

// free deletes the unique key of a job that has ended, if the key still names it. See
// submitUnique for what is read first, and why.
func (s *Store) free(ctx context.Context, j machine.Job) error {
	if j.Unique == nil {
		return nil
	}
	key := uniqueKey(j)
	held, err := s.keys.Get(ctx, key)
	switch {
	case errors.Is(err, kv.ErrNotFound), err == nil && held.Value.ID != j.ID:
		return nil
	case err != nil:
		return err
	}
	now, err := s.Get(ctx, j.ID)
	switch {
	case errors.Is(err, ErrNotFound), err == nil && !now.Value.State.Final():
		return nil // a new life begins, or has begun
	case err != nil:
		return err
	}
	return s.keys.Remove(ctx, key, held.Revision)
}

// keysOf opens the bucket of unique keys.
func keysOf(pub *publish.Publisher, ns streams.Namespace) *kv.Bucket[holder] {
	return kv.Open(pub, ns.Bucket(streams.Cursor), kv.JSON[holder]())
}

// wholeSeconds rounds up, as times to live want it.
func wholeSeconds(d time.Duration) time.Duration {
	return (d + time.Second - 1).Truncate(time.Second)
}
