package spec_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/engine/spec"
	"pgregory.net/rapid"
)

func TestCover(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		subjects, want, err string
	}{
		{"", "", ""},
		{"b a b", "a b", ""},
		{"orders.created orders.>", "orders.>", ""},
		{"a.* a.b a.b.c", "a.* a.b.c", ""},
		{"a.> a.*", "a.>", ""},
		{"a.> a", "a a.>", ""},
		{"a.*.c a.b.* a.>", "a.>", ""},
		{"a.b.* a.*.c", "", `spec: cover subjects: "a.*.c" and "a.b.*" cross, and neither contains the other: make one of them wide enough to contain the other, and narrow it with when`},
		{"*.b a.>", "", `spec: cover subjects: "*.b" and "a.>" cross, and neither contains the other: make one of them wide enough to contain the other, and narrow it with when`},
		{"a..b", "", `spec: cover subjects: filter "a..b" has nothing before, after or between its dots: write it like orders.created`},
	} {
		got, err := spec.Cover(strings.Fields(tt.subjects))
		message := ""
		if err != nil {
			message = err.Error()
		}
		if message != tt.err || strings.Join(got, " ") != tt.want {
			t.Errorf("Cover(%s) = %v, %v, want %s%s", tt.subjects, got, err, tt.want, tt.err)
		}
	}
}

// subjects draws subjects over two words, where they meet.
func subjects() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		tokens := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*"}), 1, 3).Draw(t, "tokens")
		if rapid.Bool().Draw(t, "open") {
			tokens = append(tokens[:len(tokens)-1], ">")
		}
		return strings.Join(tokens, ".")
	})
}

// universe is every concrete subject of up to four tokens over three words, one
// more of each than subjects has: whatever tells two subjects apart is in it.
func universe() []string {
	all, last := []string{}, []string{""}
	for range 4 {
		var next []string
		for _, head := range last {
			for _, word := range []string{"a", "b", "c"} {
				next = append(next, strings.TrimPrefix(head+"."+word, "."))
			}
		}
		all, last = append(all, next...), next
	}
	return all
}

// matches is what NATS does, written another way.
func matches(subject, concrete string) bool {
	pattern, words := strings.Split(subject, "."), strings.Split(concrete, ".")
	for i, token := range pattern {
		if token == ">" {
			return len(words) > i
		}
		if i >= len(words) || token != "*" && token != words[i] {
			return false
		}
	}
	return len(pattern) == len(words)
}

func matched(subject string) []string {
	var found []string
	for _, concrete := range universe() {
		if matches(subject, concrete) {
			found = append(found, concrete)
		}
	}
	return found
}

// Two subjects contain one another or overlap exactly if their messages do.
func TestContainsAndOverlapsLaw(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b := subjects().Draw(t, "a"), subjects().Draw(t, "b")
		contains, overlap := true, false
		for _, concrete := range matched(b) {
			in := matches(a, concrete)
			contains, overlap = contains && in, overlap || in
		}
		if got := spec.Contains(a, b); got != contains {
			t.Errorf("Contains(%s, %s) = %v", a, b, got)
		}
		if got := spec.Overlaps(a, b); got != overlap {
			t.Errorf("Overlaps(%s, %s) = %v", a, b, got)
		}
	})
}

// A cover takes in what was given and nothing else, each message once, with the
// fewest subjects there can be; only subjects that cross have none.
func TestCoverLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		given := rapid.SliceOfN(subjects(), 0, 6).Draw(t, "subjects")
		before := slices.Clone(given)
		cover, err := spec.Cover(given)
		if diff := cmp.Diff(before, given); diff != "" {
			t.Fatalf("Cover changed what it was given:\n%s", diff)
		}
		if err != nil {
			if !crossing(given) {
				t.Fatalf("%v, but nothing crosses", err)
			}
			return
		}
		if !slices.IsSorted(cover) {
			t.Fatalf("%v is not in order", cover)
		}
		for _, concrete := range universe() {
			want := 0
			if slices.ContainsFunc(given, func(s string) bool { return matches(s, concrete) }) {
				want = 1
			}
			var by []string
			for _, s := range cover {
				if matches(s, concrete) {
					by = append(by, s)
				}
			}
			if len(by) != want {
				t.Fatalf("%s is taken in by %v, want %d of them", concrete, by, want)
			}
		}
		// Fewest: every one is needed, since it was given and no other overlaps it.
		for _, s := range cover {
			if !slices.Contains(given, s) || len(matched(s)) == 0 {
				t.Fatalf("%s is not needed", s)
			}
		}
	})
}

// crossing reports whether two of the subjects that no other contains share a
// message.
func crossing(given []string) bool {
	inside := func(a, b string) bool {
		return !slices.ContainsFunc(matched(a), func(c string) bool { return !matches(b, c) })
	}
	var widest []string
	for _, s := range given {
		if !slices.ContainsFunc(given, func(o string) bool { return o != s && inside(s, o) && !inside(o, s) }) {
			widest = append(widest, s)
		}
	}
	for _, a := range widest {
		for _, b := range widest {
			if a != b && slices.ContainsFunc(matched(a), func(c string) bool { return matches(b, c) }) {
				return true
			}
		}
	}
	return false
}
