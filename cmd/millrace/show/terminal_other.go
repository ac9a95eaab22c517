//go:build !unix

package show

import "os"

// Size says that nothing is a terminal on which text can be drawn again
// in place.
func Size(*os.File) (width, height int, ok bool) { return 0, 0, false }
