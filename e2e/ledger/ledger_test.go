package ledger_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/ledger"
)

// open opens the ledger at path until the test ends.
func open(t *testing.T, path string, skew time.Duration) *ledger.Writer {
	t.Helper()
	w, err := ledger.Open(path, skew)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// Writers that append at the same time leave whole lines, those of each in their
// order.
func TestWrite(t *testing.T) {
	t.Parallel()
	const writers, lines = 8, 200
	path := filepath.Join(t.TempDir(), "ledger")
	var all sync.WaitGroup
	for n := range writers {
		w := open(t, path, 0)
		all.Go(func() {
			for i := range lines {
				e := ledger.Entry{What: ledger.Start, Process: fmt.Sprint("w", n), Attempt: i, Note: strings.Repeat("long ", i)}
				if err := w.Write(e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	entries, err := ledger.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	next := map[string]int{}
	for _, e := range entries {
		if e.Attempt != next[e.Process] || e.At == 0 {
			t.Fatalf("entry %d of %s, at %d, stands where %d should", e.Attempt, e.Process, e.At, next[e.Process])
		}
		next[e.Process]++
	}
	if len(entries) != writers*lines {
		t.Errorf("%d entries are there, %d were written", len(entries), writers*lines)
	}
}

// A clock that was set wrong is right in the ledger, and a time that is given
// stays.
func TestTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger")
	behind := open(t, path, -time.Hour)
	if ahead := time.Until(time.Unix(0, behind.Now())); ahead.Round(time.Minute) != time.Hour {
		t.Errorf("what a clock that is an hour behind says is put off by %v, want an hour", ahead)
	}
	want := []ledger.Entry{{At: 7, What: ledger.Note, Note: "given"}}
	if err := behind.Write(want[0]); err != nil {
		t.Fatal(err)
	}
	got, err := ledger.Load(path)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("got error %v and (-want +got):\n%s", err, diff)
	}
}

// The last line may be cut off, and no other.
func TestLoad(t *testing.T) {
	t.Parallel()
	const whole, part = `{"at":1,"what":"note"}` + "\n", `{"at":2,"wh`
	for name, test := range map[string]struct {
		text    string
		entries int
		err     string
	}{
		"nothing":         {"", 0, ""},
		"whole":           {whole + whole, 2, ""},
		"the end cut off": {whole + part, 1, ""},
		"a line cut off":  {whole + part + "\n" + whole, 0, "line 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "ledger")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := ledger.Load(path)
			if len(got) != test.entries || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %d entries and error %v, want %d and %q", len(got), err, test.entries, test.err)
			}
		})
	}
	if _, err := ledger.Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a ledger that is not there was loaded")
	}
}
