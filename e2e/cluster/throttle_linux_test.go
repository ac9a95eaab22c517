package cluster_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/actor"
	"github.com/millrace/millrace/e2e/cluster"
)

// standing reports whether a process is stopped, as the system sees it.
func standing(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(stat, []byte(") "))
	return after[0] == 'T'
}

// A process that is throttled stands and runs in turns, and works all the same.
func TestThrottle(t *testing.T) {
	t.Parallel()
	c, w1 := begin(t, 3*time.Second)
	stop := w1.Throttle(0.3)
	for range 3 {
		c.Await("w1 stands", func() bool { return standing(t, w1.Pid()) })
		c.Await("w1 runs", func() bool { return !standing(t, w1.Pid()) })
	}
	c.Submit(cluster.Load{Prefix: "b", Count: 10, Work: actor.Work{For: 20}}).Await()
	c.AwaitEnded(11)
	stop()
	if standing(t, w1.Pid()) {
		t.Error("w1 stands, and is no longer throttled")
	}
	wantFaults(t, c, "fault throttle w1#1 ", "heal throttle w1#1 ")
	c.Judge()
}
