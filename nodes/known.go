package nodes

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/kv"
)

// known is what the judge has read of one kind of key of the nodes bucket: a
// number for each node. Most of these nodes are gone, and stay there for a day,
// so a reading takes only what has changed: it begins at the newest value of the
// reading before.
//
// What is known may be old or wrong, as a list that is read in full may be, since
// any replica answers. All that follows from it is a suspicion, and who is dead is
// decided by what the leader says. So an error costs a look that was not needed,
// or delays one until it is healed:
//
//   - A replica that is behind has nothing where the reading begins, or not all
//     that comes later. In the first case, what it has is read in full and stands
//     until the next reading; in the other, the next reading begins where this one
//     ended.
//   - A stream that was made anew, or lost its end in a crash, does not have the
//     newest value as it was: it is read in full. That is not noticed if the same
//     key has been written again, at a later sequence.
//   - A marker stays for a minute. If the reading before failed, or began too long
//     ago for this one to meet all of them, it is one in full. With a lease of more
//     than a minute and a half, all are.
//   - What was removed without a marker, or was not noticed for whatever other
//     reason, is found by the full reading that is due every few minutes, and at
//     every reconnect.
//   - Nothing of it outlives the process: every owner begins with a full reading.
//
// A known that has read nothing needs only its first three fields. It is not safe
// for concurrent use.
type known[T any] struct {
	bucket *kv.Bucket[T]
	prefix string                   // of the keys, before the node
	number func(kv.Entry[T]) uint64 // what is kept of a value

	numbers map[string]uint64 // by node
	newest  kv.Entry[T]       // without its value; zero if there is none
	begun   time.Time         // when the last reading began; zero if it does not count
	full    time.Time         // when the last one in full began
}

const (
	// fullEvery is when everything is read again although nothing is amiss.
	fullEvery = 10 * time.Minute
	// maxGap is the longest time between two readings of which the second meets
	// every marker: half of how long the nodes bucket keeps one.
	maxGap = 30 * time.Second
)

// forget makes the next reading a full one.
func (k *known[T]) forget() { k.begun = time.Time{} }

// read brings numbers up to date. If it fails, they stay as they were.
func (k *known[T]) read(ctx context.Context) error {
	now, last := time.Now(), k.begun
	k.forget() // unless it succeeds
	if now.Sub(last) <= maxGap && now.Sub(k.full) < fullEvery {
		changes, err := k.bucket.ChangesStale(ctx, k.prefix+"*", k.newest.Revision)
		if err != nil {
			return err
		}
		if k.follow(changes) {
			k.take(changes)
			k.begun = now
			return nil
		}
	}
	everything, err := k.bucket.ChangesStale(ctx, k.prefix+"*", 0)
	if err != nil {
		return err
	}
	k.numbers, k.newest = make(map[string]uint64, len(everything)), kv.Entry[T]{}
	k.take(everything)
	k.begun, k.full = now, now
	return nil
}

// follow reports whether changes, which were read from the newest value on, go on
// from what is known: the newest value is among them, or what took its place.
func (k *known[T]) follow(changes []kv.Event[T]) bool {
	if k.newest.Revision == 0 {
		return true // they are everything
	}
	i := slices.IndexFunc(changes, func(c kv.Event[T]) bool { return c.Entry.Key == k.newest.Key })
	if i < 0 {
		return false
	}
	found := changes[i].Entry
	return found.Revision > k.newest.Revision || found.Stored.Equal(k.newest.Stored)
}

// take notes changes.
func (k *known[T]) take(changes []kv.Event[T]) {
	for _, c := range changes {
		node := strings.TrimPrefix(c.Entry.Key, k.prefix)
		if c.Kind == kv.Deleted {
			delete(k.numbers, node)
			continue
		}
		k.numbers[node] = k.number(c.Entry)
		k.newest = kv.Entry[T]{Key: c.Entry.Key, Revision: c.Entry.Revision, Stored: c.Entry.Stored}
	}
}
