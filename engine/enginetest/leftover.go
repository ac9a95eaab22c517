package enginetest

import (
	"regexp"
	"runtime"
	"strings"
)

// leftovers returns where goroutines of this bubble are that do not belong to
// the test itself, one line each.
func leftovers() (list []string) {
	here := bubble(stacks(false))
	for stack := range strings.SplitSeq(stacks(true), "\n\n") {
		if bubble(stack) == here && !own.MatchString(stack) {
			list = append(list, place(stack))
		}
	}
	return list
}

// stacks returns the stack of this goroutine, or of all.
func stacks(all bool) string {
	for size := 64 << 10; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, all); n < size {
			return string(buf[:n])
		}
	}
}

// own matches the stacks of the goroutines that make up a test in a bubble.
var own = regexp.MustCompile(`(?m)^(testing\.tRunner|testing/synctest\.testingSynctestTest|internal/synctest\.Run)\(`)

var bubbled = regexp.MustCompile(`^goroutine \d+ \[.*(synctest bubble \d+).*\]`)

// bubble returns the name of the bubble that a goroutine is in.
func bubble(stack string) string {
	if m := bubbled.FindStringSubmatch(stack); m != nil {
		return m[1]
	}
	return ""
}

var (
	call = regexp.MustCompile(`(?m)^(\S+)\(.*\)\n\t(\S+:\d+)`)
	deep = regexp.MustCompile(`^(runtime|time|sync|context|internal/.*)\.`)
)

// place returns where a goroutine is: its innermost call that is not one of the
// runtime and what waits in it.
func place(stack string) string {
	for _, m := range call.FindAllStringSubmatch(stack, -1) {
		if !deep.MatchString(m[1]) {
			return m[1] + " at " + m[2]
		}
	}
	head, _, _ := strings.Cut(stack, "\n")
	return head
}
