package kv

import (
	"context"
	"slices"

	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/publish"
)

const (
	// recentPage is how many messages Recent asks for at first. Each time it asks
	// for twice as many, and for recentMost at most: the server counts the keys of
	// the bucket for each request.
	recentPage = 256
	recentMost = 8192
	// recentBytes is about how many bytes it asks for at once: writes wait meanwhile.
	recentBytes = 2 << 20
)

// lateRounds is how often Recent looks for what changed while it looked.
const lateRounds = 3

// Recent calls visit once for every key that matches filter, the most recently
// changed first, until visit returns false. A key whose change took it out of
// the walk comes at the end, with its new value. Any replica answers.
//
// It walks the stream backwards by windows of sequences. A window that turns
// out thin makes the next one wider, so that long gaps cost little.
func (b *Bucket[T]) Recent(ctx context.Context, filter string, visit func(Entry[T]) (more bool)) error {
	first, last, err := b.span(ctx)
	if err != nil {
		return b.failed("list", filter, err)
	}
	get := direct.Get{Batch: recentPage, MaxBytes: recentBytes}
	if filter != ">" {
		get.NextBySubject = b.prefix + filter
	}
	seen := map[string]struct{}{}
	show := func(found []stored) (more bool) {
		for _, s := range slices.Backward(found) {
			e, ok := b.value(s)
			if _, again := seen[s.subject]; again || !ok {
				continue
			}
			seen[s.subject] = struct{}{}
			if !visit(e) {
				return false
			}
		}
		return true
	}
	page, width := recentPage, uint64(recentPage)
	for end := last + 1; end > first; { // end is the first sequence that was seen
		start := first
		if end-first > width {
			start = end - width
		}
		get.Seq, get.Batch = start, int(min(uint64(page), width))
		found, err := b.window(ctx, get, end)
		if err != nil {
			return b.failed("list", filter, err)
		}
		if !show(found) {
			return nil
		}
		switch {
		case len(found) < page/8:
			width *= 4
		case len(found) < page/2:
			width *= 2
		case len(found) > page:
			width /= 2
		}
		page = min(2*page, recentMost)
		end = start
	}
	return b.late(ctx, get, last+1, show)
}

// late shows what was written since sequence start.
func (b *Bucket[T]) late(ctx context.Context, get direct.Get, start uint64, show func([]stored) bool) error {
	for range lateRounds {
		_, last, err := b.span(ctx)
		if err != nil {
			return b.failed("list", b.name, err)
		}
		if last < start {
			return nil
		}
		get.Seq = start
		found, err := b.window(ctx, get, last+1)
		if err != nil {
			return b.failed("list", b.name, err)
		}
		if !show(found) {
			return nil
		}
		start = last + 1
	}
	return nil
}

// window returns what get finds from its first sequence up to, and without,
// end.
func (b *Bucket[T]) window(ctx context.Context, get direct.Get, end uint64) ([]stored, error) {
	var found []stored
	for {
		last, more, err := b.direct(ctx, get, func(s stored) {
			if s.sequence < end {
				found = append(found, s)
			}
		})
		if err != nil || !more || last >= end-1 {
			return found, err
		}
		get.Seq = last + 1
	}
}

// span returns the first and last sequence of the bucket's stream.
func (b *Bucket[T]) span(ctx context.Context) (first, last uint64, err error) {
	var answer struct {
		publish.Refusal
		State struct {
			First uint64 `json:"first_seq"`
			Last  uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := b.pub.Ask(ctx, "STREAM.INFO."+b.Stream(), nil, &answer); err != nil {
		return 0, 0, err
	}
	return max(answer.State.First, 1), answer.State.Last, nil
}
