package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace/millrace/engine/blobs"
)

// The owner sweeps what no record names, when it comes and every hour.
func TestSweep(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		objects := blobs.Open(w.pub, ns)
		put := func(made time.Time) {
			t.Helper()
			if err := objects.Put(t.Context(), blobs.Name("q.gone", made), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		want := func(want int) {
			t.Helper()
			synctest.Wait()
			n := 0
			if err := objects.List(t.Context(), func(string) error { n++; return nil }); err != nil || n != want {
				t.Errorf("there are %d objects, %v, want %d", n, err, want)
			}
		}
		put(time.Now().Add(-2 * time.Hour))
		put(time.Now())
		w.own("owner")
		time.Sleep(time.Second)
		want(1)
		time.Sleep(time.Hour)
		want(0)
	})
}
