package timers

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Entries leave in the order of their due times, whenever they came, and push
// tells when the first one changes.
func TestHeapLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var h heap
		var model []int64
		for i := range rapid.IntRange(1, 200).Draw(t, "steps") {
			if len(model) > 0 && rapid.IntRange(0, 2).Draw(t, "pop") == 0 {
				e := h.pop()
				at := slices.Index(model, slices.Min(model))
				if e.due != model[at] {
					t.Fatalf("popped %d, want %d", e.due, model[at])
				}
				model = slices.Delete(model, at, at+1)
			} else {
				due := rapid.Int64Range(0, 50).Draw(t, "due")
				first := len(model) == 0 || due < slices.Min(model)
				if got := h.push(entry{due, uint64(i)}); got != first {
					t.Fatalf("push of %d into %v says first is %v", due, model, got)
				}
				model = append(model, due)
			}
			if len(h) != len(model) {
				t.Fatalf("there are %d entries, want %d", len(h), len(model))
			}
		}
	})
}

// Nothing is lost and nothing is there twice.
func TestHeapKeepsAll(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dues := rapid.SliceOfN(rapid.Int64Range(0, 20), 0, 300).Draw(t, "dues")
		var h heap
		for i, due := range dues {
			h.push(entry{due, uint64(i)})
		}
		seen := make([]bool, len(dues))
		for range dues {
			e := h.pop()
			if seen[e.sequence] || dues[e.sequence] != e.due {
				t.Fatalf("popped %v", e)
			}
			seen[e.sequence] = true
		}
	})
}
