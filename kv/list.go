package kv

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/publish"
)

// GetManyStale returns the values of those keys that have one, in the order of
// their revisions. Any replica answers: it is for lists and pages.
func (b *Bucket[T]) GetManyStale(ctx context.Context, keys []string) ([]Entry[T], error) {
	var list []Entry[T]
	for chunk := range slices.Chunk(keys, direct.Max) {
		subjects := make([]string, len(chunk))
		for i, key := range chunk {
			if err := checkKey(key); err != nil {
				return nil, b.failed("get", key, err)
			}
			subjects[i] = b.prefix + key
		}
		err := b.directAll(ctx, direct.Get{MultiLast: subjects}, b.collect(&list))
		if err != nil {
			return nil, b.failed("get", fmt.Sprintf("%d keys", len(keys)), err)
		}
	}
	return list, nil
}

// ListStale returns the values of all keys that match filter, which may have
// wildcards, in the order of their revisions. Any replica answers.
func (b *Bucket[T]) ListStale(ctx context.Context, filter string) ([]Entry[T], error) {
	var list []Entry[T]
	err := b.directAll(ctx, direct.Get{MultiLast: []string{b.prefix + filter}}, b.collect(&list))
	if errors.Is(err, direct.ErrTooMany) {
		page := direct.Get{Seq: 1, NextBySubject: b.prefix + filter, Batch: direct.Max}
		err = b.directAll(ctx, page, b.collect(&list))
	}
	if err != nil {
		return nil, b.failed("list", filter, err)
	}
	return list, nil
}

// collect returns a function that adds what it is given to list, unless it is a
// marker or cannot be decoded.
func (b *Bucket[T]) collect(list *[]Entry[T]) func(stored) {
	return func(s stored) {
		if e, ok := b.value(s); ok {
			*list = append(*list, e)
		}
	}
}

// value returns s as an entry. It passes over markers, and over what cannot be
// decoded with a word in the log.
func (b *Bucket[T]) value(s stored) (Entry[T], bool) {
	if s.marker() {
		return Entry[T]{}, false
	}
	e, err := b.entry(s)
	if err != nil {
		b.log.Warn("value passed over", "bucket", b.name, "subject", s.subject, "err", err)
		return Entry[T]{}, false
	}
	return e, true
}

// direct reads from the stream of the bucket. It returns the last sequence, and
// whether there are more behind it.
func (b *Bucket[T]) direct(ctx context.Context, get direct.Get, got func(stored)) (last uint64, more bool, err error) {
	return get.Page(ctx, b.pub, b.Stream(), func(m publish.Message) { got(storedOf(m)) })
}

// directAll calls got with every message that fits.
func (b *Bucket[T]) directAll(ctx context.Context, get direct.Get, got func(stored)) error {
	return get.All(ctx, b.pub, b.Stream(), func(m publish.Message) { got(storedOf(m)) })
}
