package calendar

import "time"

// Jitter is how much later than its tick a job is due: less than most, in whole
// milliseconds. It derives from the name of the schedule and the tick, and is the
// same in all versions for ever.
func Jitter(name string, tick time.Time, most time.Duration) time.Duration {
	limit := uint64(max(most.Milliseconds(), 0))
	if limit == 0 {
		return 0
	}
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	hash := uint64(offset)
	for i := range len(name) {
		hash = (hash ^ uint64(name[i])) * prime
	}
	for ms, shift := uint64(tick.UnixMilli()), 0; shift < 64; shift += 8 {
		hash = (hash ^ ms>>shift&0xff) * prime
	}
	// The low bits of FNV are weak: the finalizer of splitmix64 spreads the high ones.
	hash = (hash ^ hash>>30) * 0xbf58476d1ce4e5b9
	hash = (hash ^ hash>>27) * 0x94d049bb133111eb
	hash ^= hash >> 31
	return time.Duration(hash%limit) * time.Millisecond
}
