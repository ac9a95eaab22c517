package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keep makes the folder of a run that was kept.
func keep(t *testing.T, jobs string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"run.json": `{"test":"TestMix","lease":6000000000,"servers":1,"seed":7}`,
		"ledger.jsonl": `{"at":1000000000,"what":"born","process":"w1#1","node":"w1","role":"worker"}
{"at":2000000000,"call":1900000000,"what":"call","verb":"submit","outcome":"created","job":"work.a"}
{"at":3000000000,"what":"start","process":"w1#1","node":"w1","job":"work.a","attempt":1,"fence":1,"nonce":"x"}
{"at":4000000000,"what":"end","process":"w1#1","node":"w1","job":"work.a","attempt":1,"fence":1,"nonce":"x","outcome":"succeeded"}
`,
		"jobs.jsonl":   jobs,
		"w1#1.log":     "",
		"n1/jetstream": "",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Looking at a run shows what it came to, and says by the exit status whether
// something was wrong.
func TestLook(t *testing.T) {
	t.Parallel()
	right := keep(t, `{"id":"work.a","state":"succeeded","attempt":1,"result":{"nonce":"x"}}`)
	wrong := keep(t, `{"id":"work.a","state":"succeeded","attempt":1,"result":{"nonce":"y"}}`)
	for name, test := range map[string]struct {
		args   []string
		status int
		want   []string
	}{
		"right": {[]string{right}, 0, []string{
			"TestMix  seed 7  lease 6s  servers 1", "jobs        1: 1 succeeded", "violations  0",
			filepath.Join(right, "*.log"), "millrace dev --no-engine --dir " + filepath.Join(right, "n1"),
		}},
		"wrong":                {[]string{wrong}, 1, []string{"violations  1", "I3: job work.a: the record has the result of run y", "2.000  w1#1     start attempt 1 run x"}},
		"a job":                {[]string{"-job", "work.a", wrong}, 0, []string{"end attempt 1 run x", "record   succeeded"}},
		"a job, said later":    {[]string{wrong, "-job", "work.a"}, 0, []string{"end attempt 1 run x"}},
		"a job that is none":   {[]string{"-job", "work.z", wrong}, 2, []string{"look: the run has no job work.z: "}},
		"a process":            {[]string{"-process", "w1", wrong}, 0, []string{"born", "start work.a attempt 1"}},
		"one that is none":     {[]string{"-process", "w2", right}, 2, []string{"look: the run has no process w2: "}},
		"no folder":            {nil, 2, []string{"usage:"}},
		"a folder that is not": {[]string{filepath.Join(right, "none")}, 2, []string{"look: oracle: load", "name the folder"}},
		"two folders":          {[]string{right, wrong}, 2, []string{"usage:"}},
		"a flag that is not":   {[]string{"-nothing", right}, 2, []string{"usage:"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			if status := look(test.args, &out, &out); status != test.status {
				t.Errorf("exit status %d, want %d", status, test.status)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("there is no %q in\n%s", want, out.String())
				}
			}
		})
	}
}
