package e2e_test

import (
	"os"
	"testing"

	"github.com/millrace/millrace/e2e/cluster"
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }
