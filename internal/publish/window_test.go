package publish

import (
	"testing"

	"pgregory.net/rapid"
)

// A window behaves like a map from numbers to calls, and its head is the oldest.
func TestWindow(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var w window
		model := map[uint64]bool{}
		next := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				for range rapid.IntRange(1, 100).Draw(t, "calls") {
					n := w.add(call{life: next, done: func(Ack, error) {}})
					if n != next {
						t.Fatalf("call %d got number %d", next, n)
					}
					model[n] = true
					next++
				}
			},
			"take": func(t *rapid.T) {
				n := rapid.Uint64Range(0, next+1).Draw(t, "n")
				c, ok := w.take(n)
				if ok != model[n] || ok && c.life != n {
					t.Fatalf("take %d: got %v, %v, want %v", n, c.life, ok, model[n])
				}
				delete(model, n)
			},
			"take the oldest": func(t *rapid.T) {
				for range rapid.IntRange(1, 100).Draw(t, "calls") {
					n := w.head
					if _, ok := w.take(n); ok != (len(model) > 0) {
						t.Fatalf("oldest is %d, of %d", n, len(model))
					}
					for m := range model {
						if m < n {
							t.Fatalf("%d was taken as the oldest before %d", n, m)
						}
					}
					delete(model, n)
				}
			},
			"": func(t *rapid.T) {
				if w.open != len(model) {
					t.Fatalf("%d calls are open, want %d", w.open, len(model))
				}
			},
		})
	})
}
