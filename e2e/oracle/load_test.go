package oracle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/e2e/ledger"
	"github.com/millrace/millrace/e2e/oracle"
)

// write puts files into a folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What is saved is loaded.
func TestSaveAndLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	run := oracle.Run{
		Test: "TestMix", Lease: 15 * time.Second, Slack: time.Second, Servers: 3, Seed: 7,
		Jobs: []oracle.Job{{
			ID: "work.a", State: "failed", Attempt: 2, Fence: 9, Revision: 12, Finished: began,
			Error:    &oracle.Error{Message: "broken", Code: "node_lost"},
			Attempts: []oracle.Attempt{{Number: 2, Node: "w1", Started: began, Ended: began, Outcome: "lost"}},
		}, {ID: "work.b", State: "pending"}},
		Ledger: []ledger.Entry{{At: 1, What: ledger.Born, Process: "w1#1"}},
	}
	book, err := ledger.Open(filepath.Join(dir, oracle.LedgerFile), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := book.Write(run.Ledger[0]); err != nil {
		t.Fatal(err)
	}
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	unlisted := run
	unlisted.Jobs, unlisted.Unlisted = nil, true
	for _, want := range []oracle.Run{unlisted, run} { // as a run goes on
		if err := want.Save(dir); err != nil {
			t.Fatal(err)
		}
		got, err := oracle.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("loaded is not what was saved (-saved +loaded):\n%s", diff)
		}
	}
}

// What cannot be read is an error that says which file it is.
func TestLoadBroken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"nothing":         {nil, "ledger.jsonl"},
		"a broken run":    {map[string]string{"run.json": "{", "ledger.jsonl": ""}, "run.json"},
		"a broken ledger": {map[string]string{"ledger.jsonl": "{\n{}\n"}, "line 1"},
		"broken jobs":     {map[string]string{"ledger.jsonl": "", "jobs.jsonl": "{}\n{"}, "job 2"},
		"a broken array":  {map[string]string{"ledger.jsonl": "", "jobs.jsonl": "[1]"}, "jobs.jsonl"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := oracle.Load(write(t, test.files)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
		})
	}
}

// A list of jobs is one after the other, or an array.
func TestDecodeJobs(t *testing.T) {
	t.Parallel()
	const a, b = `{"id":"work.a","node":null,"result":null,"error":null,"finished_at":null}`, `{"id":"work.b"}`
	for _, text := range []string{a + "\n" + b + "\n", "\n [" + a + ",\n" + b + "]"} {
		jobs, err := oracle.DecodeJobs(strings.NewReader(text))
		if err != nil || len(jobs) != 2 || jobs[0].ID != "work.a" || jobs[1].ID != "work.b" {
			t.Errorf("%s: got %+v, %v", text, jobs, err)
		}
	}
}

// Whatever lies in the folder, it is judged or refused.
func FuzzLoad(f *testing.F) {
	f.Add(`{"at":1,"what":"start","job":"work.a","attempt":1,"process":"w1#1"}`, `{"id":"work.a","state":"succeeded"}`, `{"servers":3}`)
	f.Add(`{"at":-9223372036854775808,"what":"call","verb":"cancel","outcome":"ok","job":"a","call":9223372036854775807}`, `[{"id":"a"}]`, `{"lease":-1}`)
	f.Add(`{"at":5,"what":"owner","node":"s1","revision":1}`+"\n"+`{"at":4,"what":"fault","verb":"stop","process":"n1","role":"server"}`,
		`{"id":"a","attempts":[{"number":-1,"started_at":"9999-01-01T00:00:00Z"}]}`, `{"slack":9223372036854775807}`)
	f.Fuzz(func(t *testing.T, book, jobs, settings string) {
		run, err := oracle.Load(write(t, map[string]string{"ledger.jsonl": book, "jobs.jsonl": jobs, "run.json": settings}))
		if err != nil {
			return
		}
		for _, v := range run.Check() {
			_ = v.String()
		}
		_ = run.Figures().String()
		for _, e := range run.Ledger {
			_, _ = run.Timeline(e.Job), run.Biography(e.Process)
		}
	})
}

// A run of a million entries is judged in seconds.
func BenchmarkCheck(b *testing.B) {
	run := oracle.Run{}
	add := func(e ledger.Entry) { run.Ledger = append(run.Ledger, e) }
	at := began.UnixNano()
	add(ledger.Entry{At: at, What: ledger.Born, Process: "n1", Role: "server"})
	for w := range 10 {
		add(ledger.Entry{At: at, What: ledger.Born, Process: fmt.Sprintf("w%d#1", w), Node: fmt.Sprint("w", w), Queue: "work", Count: 10})
	}
	for n := range 250_000 {
		at += int64(time.Millisecond)
		e := ledger.Entry{Job: fmt.Sprint("work.", n), Process: fmt.Sprintf("w%d#1", n%10), Attempt: 1, Fence: uint64(n + 1), Nonce: fmt.Sprint(n)}
		add(ledger.Entry{At: at, Call: at - 100, What: ledger.Call, Verb: ledger.Submit, Job: e.Job, Outcome: ledger.Created})
		e.At, e.What = at+1000, ledger.Start
		add(e)
		e.At, e.What, e.Outcome = at+2000, ledger.End, ledger.Succeeded
		add(e)
		add(ledger.Entry{At: at + 3000, Call: at + 2500, What: ledger.Read, Job: e.Job, State: "succeeded", Attempt: 1, Revision: e.Fence})
		run.Jobs = append(run.Jobs, oracle.Job{
			ID: e.Job, State: "succeeded", Attempt: 1, Revision: e.Fence, Result: fmt.Appendf(nil, `{"nonce":%q}`, e.Nonce),
			Attempts: []oracle.Attempt{{Number: 1, Node: "w1", Started: time.Unix(0, at+900), Ended: time.Unix(0, at+2100), Outcome: "succeeded"}},
		})
		if n%1000 == 0 {
			add(ledger.Entry{At: at, What: ledger.Fault, Verb: ledger.Stop, Process: e.Process})
			add(ledger.Entry{At: at + 1000, What: ledger.Heal, Verb: ledger.Stop, Process: e.Process})
		}
	}
	for b.Loop() {
		if said := run.Check(); len(said) > 0 {
			b.Fatalf("%d violations: %v", len(said), said[0])
		}
	}
}
