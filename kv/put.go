package kv

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/internal/publish"
)

// Put is like [Bucket.Edit], but creates the value of a key that has none: change
// is given an entry with nothing but the key then. It is also given the revision
// and the time of what it changes.
//
// A create whose answer is lost is settled by looking, and by making it again. If
// it had been stored, change is given what it stored, and so it should say what
// the value is to be and not by how much it differs.
func (b *Bucket[T]) Put(ctx context.Context, key string, change func(Entry[T]) (T, error)) (Entry[T], error) {
	var refused error
	noted := func(was Entry[T]) (next T, err error) {
		next, err = change(was)
		refused = err
		return next, err
	}
	for race := 0; ; race++ {
		e, err := b.edit(ctx, key, noted, nil)
		if err == nil || refused != nil || !errors.Is(err, ErrNotFound) {
			return e, err
		}
		e = Entry[T]{Key: key}
		if e.Value, err = noted(e); errors.Is(err, ErrKeep) {
			return e, nil
		}
		if err == nil {
			e.Revision, err = b.Create(ctx, key, e.Value)
		}
		if err == nil || refused != nil || !errors.Is(err, ErrExists) && !Unknown(err) {
			return e, err
		}
		if err := b.await(ctx, key, race); err != nil {
			return Entry[T]{}, b.failed("create", key, err)
		}
	}
}

// Drop deletes the value of key, whatever its revision is by then. It calls look,
// which may be nil, with each entry before it deletes that; an error that look
// returns ends it, and is returned as it is. It returns [ErrNotFound] if there
// was nothing to delete.
//
// A delete whose answer is lost is settled by looking, and by deleting again.
func (b *Bucket[T]) Drop(ctx context.Context, key string, look func(Entry[T]) error) error {
	for race := 0; ; race++ {
		cur, err := b.Get(ctx, key)
		if race > 0 && errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if look != nil {
			if err := look(cur); err != nil {
				return err
			}
		}
		if err := b.Delete(ctx, key, cur.Revision); !Unknown(err) {
			return err
		}
		if err := b.await(ctx, key, race); err != nil {
			return b.failed("delete", key, err)
		}
	}
}

// await waits a little after a write that may have been stored, and then until
// the server says what key has, or ctx ends.
func (b *Bucket[T]) await(ctx context.Context, key string, race int) error {
	err := pause(ctx, race)
	if err == nil {
		_, err = b.reread(ctx, key)
	}
	if err == nil || errors.Is(err, ErrNotFound) {
		return nil
	}
	return fmt.Errorf("%w: %w", publish.ErrUnknown, err)
}
