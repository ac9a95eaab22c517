//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd || windows)

package embedded

import (
	"fmt"
	"os"
	"runtime"
)

// lock refuses: a file that merely exists would outlive a crash.
func lock(*os.File) error {
	return fmt.Errorf("%s has no lock that ends with the process; run nats-server by itself", runtime.GOOS)
}

func unlock(f *os.File) { f.Close() }
