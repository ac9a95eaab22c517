package reconcile

// census numbers whom or what jobs depend on, from 1, and counts the jobs of each.
type census[K comparable] struct {
	numbers map[K]uint32
	list    []K     // by number, from 1
	jobs    []int32 // how many each has
}

// number returns the number of a key. A new one is cloned, so that the memory that it
// was read into is free.
func (c *census[K]) number(key K, clone func(K) K) uint32 {
	n := c.numbers[key]
	if n == 0 {
		if c.numbers == nil {
			c.numbers = make(map[K]uint32)
		}
		key = clone(key)
		c.list, c.jobs = append(c.list, key), append(c.jobs, 0)
		n = uint32(len(c.list))
		c.numbers[key] = n
	}
	return n
}

// of returns what has a number.
func (c *census[K]) of(number uint32) (key K) {
	if number > 0 {
		key = c.list[number-1]
	}
	return key
}

// count adds to the jobs of what has a number.
func (c *census[K]) count(number uint32, n int32) {
	if number > 0 {
		c.jobs[number-1] += n
	}
}

// which reports, by number, what has jobs and is like that, and whether something is.
func (c *census[K]) which(like func(K) bool) (list []bool, some bool) {
	list = make([]bool, len(c.list)+1)
	for i, key := range c.list {
		list[i+1] = c.jobs[i] > 0 && like(key)
		some = some || list[i+1]
	}
	return list, some
}
