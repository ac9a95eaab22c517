package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/name"
)

// Cover returns the fewest subjects that take in the same messages as the given
// ones, no two of them the same message, in order: the subjects of a stream,
// which may not overlap. What another subject contains is dropped. Subjects that
// cross, such as a.*.c and a.b.*, have no such cover and are refused.
func Cover(subjects []string) ([]string, error) {
	for _, s := range subjects {
		if err := name.CheckFilter(s); err != nil {
			return nil, fmt.Errorf("spec: cover subjects: %w", err)
		}
	}
	cover := slices.Compact(slices.Sorted(slices.Values(subjects)))
	cover = slices.DeleteFunc(cover, func(s string) bool {
		return slices.ContainsFunc(subjects, func(outer string) bool { return outer != s && Contains(outer, s) })
	})
	for i, a := range cover {
		for _, b := range cover[i+1:] {
			if Overlaps(a, b) {
				return nil, fmt.Errorf("spec: cover subjects: %q and %q cross, and neither contains the other: "+
					"make one of them wide enough to contain the other, and narrow it with when", a, b)
			}
		}
	}
	return cover, nil
}

// Contains reports whether outer takes in every message that inner does. Both
// are subjects that may have wildcards.
func Contains(outer, inner string) bool {
	for {
		o, outerRest, outerMore := strings.Cut(outer, ".")
		i, innerRest, innerMore := strings.Cut(inner, ".")
		switch {
		case o == ">":
			return true
		case i == ">", o != "*" && o != i, outerMore != innerMore:
			return false
		case !outerMore:
			return true
		}
		outer, inner = outerRest, innerRest
	}
}

// Overlaps reports whether some message is taken in by both a and b.
func Overlaps(a, b string) bool {
	for {
		x, aRest, aMore := strings.Cut(a, ".")
		y, bRest, bMore := strings.Cut(b, ".")
		switch {
		case x == ">" || y == ">":
			return true
		case x != "*" && y != "*" && x != y, aMore != bMore:
			return false
		case !aMore:
			return true
		}
		a, b = aRest, bRest
	}
}
