//go:build !bugs

package bug

// The bugs, none of which is there.
const (
	AckFirst  = false
	TakeOver  = false
	Forget    = false
	SaveFirst = false
)
