package scheduler

import "container/heap"

// byDue is a heap of schedules, by when they are to be looked at.
type byDue []*course

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due < h[j].due }

func (h byDue) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i+1, j+1
}

// Push and Pop are for container/heap.
func (h *byDue) Push(c any) {
	*h = append(*h, c.(*course))
	(*h)[len(*h)-1].place = len(*h)
}

// Pop takes the last one.
func (h *byDue) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last], *h = nil, (*h)[:last]
	c.place = 0
	return c
}

// set lets c be looked at at a time, in ms since 1970; 0 means never.
func (h *byDue) set(c *course, due int64) {
	was := c.place
	c.due = due
	switch {
	case was == 0 && due != 0:
		heap.Push(h, c)
	case was != 0 && due == 0:
		heap.Remove(h, was-1)
	case was != 0:
		heap.Fix(h, was-1)
	}
}

// byLast is a heap of schedules that are to be tended, the most urgent one first: by
// earliest deadline.
type byLast []*course

func (h byLast) Len() int           { return len(h) }
func (h byLast) Less(i, j int) bool { return h[i].last < h[j].last }
func (h byLast) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push and Pop are for container/heap.
func (h *byLast) Push(c any) { *h = append(*h, c.(*course)) }

// Pop takes the last one.
func (h *byLast) Pop() any {
	last := len(*h) - 1
	c := (*h)[last]
	(*h)[last], *h = nil, (*h)[:last]
	return c
}
