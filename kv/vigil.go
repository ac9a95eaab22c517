package kv

import "time"

// Vigil finds leases that nobody holds and that yet do not expire. A server that
// was killed may bring a key back that had expired, and never end it again.
// The zero value has seen nothing. It watches one key and is not safe for
// concurrent use.
//
// It is over when the key has stayed at one revision for two TTLs by the clock
// of this process. Every renewal that is acknowledged moves the revision, so the
// holder's last one was sent before the vigil began, and by its own clock the
// holder ceased to believe in it a TTL less margin later. The second TTL leaves
// a key that does expire the time to do so, and is there for clocks that do not
// run alike. A renewal that is still on its way may yet land. So whoever acts
// on a vigil replaces or removes just the revision that it watched: then only
// one of the two can succeed, and what was read may even have been old.
//
// All who take a key have to use the same TTL.
type Vigil struct {
	revision uint64
	since    time.Time // when revision was first seen
}

// Over notes that the key is at a revision now, and reports whether the holder
// that wrote it has ceased to believe in it.
func (v *Vigil) Over(revision uint64, ttl time.Duration) bool {
	if v.since.IsZero() || v.revision != revision {
		*v = Vigil{revision, time.Now()}
	}
	return time.Since(v.since) >= 2*ttl
}
