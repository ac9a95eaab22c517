//go:build !bugs

package bug_test

import (
	"testing"

	"github.com/millrace/millrace/internal/bug"
)

// Without the tag no bug can be there: this does not compile if one is anything
// but a constant.
func TestOff(t *testing.T) {
	t.Parallel()
	const there = bug.AckFirst || bug.TakeOver || bug.Forget || bug.SaveFirst
	if there {
		t.Error("a build without the tag bugs has one")
	}
}
