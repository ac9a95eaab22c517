package timers

// entry is a timer that waits to be due: no more than it takes to find it then.
type entry struct {
	due      int64  // in milliseconds since 1970
	sequence uint64 // in the stream of timers
}

// heap holds entries, the one that is due first at the root. The children of
// the entry at i are at 2i+1 and 2i+2.
type heap []entry

// push adds an entry. It reports whether that is due before all others.
func (h *heap) push(e entry) (first bool) {
	s := append(*h, e)
	i := len(s) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if s[parent].due <= e.due {
			break
		}
		s[i] = s[parent]
		i = parent
	}
	s[i] = e
	*h = s
	return i == 0
}

// pop takes the first entry. There must be one.
func (h *heap) pop() entry {
	s := *h
	first, last := s[0], s[len(s)-1]
	s = s[:len(s)-1]
	*h = s
	if len(s) == 0 {
		return first
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= len(s) {
			break
		}
		if child+1 < len(s) && s[child+1].due < s[child].due {
			child++
		}
		if last.due <= s[child].due {
			break
		}
		s[i] = s[child]
		i = child
	}
	s[i] = last
	return first
}
