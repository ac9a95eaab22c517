package e2e_test

import (
	"flag"
	"os"
	"testing"

	"github.com/millrace/millrace/e2e/cluster"
)

// atOnce is how many tests there are at a time, where -parallel says nothing
// else: they wait more than they compute. See also room.
const atOnce = "24"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", atOnce) // it is there
	}
	os.Exit(cluster.Main(m))
}
