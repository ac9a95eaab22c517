package program

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine"
)

// What a command writes to standard error is logged line by line, however it
// arrives, and the last lines explain how it ended.
func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxLine)
	tests := []struct {
		name   string
		writes []string
		logged []string
		last   string
	}{
		{"nothing", nil, nil, "end"},
		{"one", []string{"a\n"}, []string{"a"}, "end | a"},
		{"without its end", []string{"a\nb"}, []string{"a", "b"}, "end | a | b"},
		{"in pieces", []string{"a", "b", "\nc", "\n"}, []string{"ab", "c"}, "end | ab | c"},
		{"blank ones", []string{"\n \r\n\na\r\n"}, []string{"a"}, "end | a"},
		{"the last three", []string{"1\n2\n3\n4\n"}, []string{"1", "2", "3", "4"}, "end | 2 | 3 | 4"},
		{"just fits", []string{long + "\n"}, []string{long}, "end | " + long[:lastWidth]},
		{"too long", []string{long, "yy", "yy\nz\n"}, []string{long + "…", "z"}, "end | " + long[:lastWidth] + " | z"},
		{"no text", []string{"\xff\xfea\n"}, []string{"\uFFFDa"}, "end | \uFFFDa"},
		{"cut inside a rune", []string{long[1:] + "é\n"}, []string{long[1:] + "\uFFFD…"}, "end | " + long[:lastWidth]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			job := &spoken{}
			l := &lines{job: job}
			for _, w := range tt.writes {
				if n, err := l.Write([]byte(w)); n != len(w) || err != nil {
					t.Errorf("Write(%q) = %d, %v", w, n, err)
				}
			}
			l.flush()
			if diff := cmp.Diff(tt.logged, job.lines); diff != "" {
				t.Errorf("logged (-want +got):\n%s", diff)
			}
			if got := l.explain("end"); got != tt.last || !utf8.ValidString(got) {
				t.Errorf("explained as %q, want %q", got, tt.last)
			}
		})
	}
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

// spoken is what a command says.
type spoken struct{ lines, reports []string }

func (s *spoken) Say(line string) { s.lines = append(s.lines, line) }

func (s *spoken) Progress(done, total int64, note string) {
	s.reports = append(s.reports, fmt.Sprintf("%d of %d %q", done, total, note))
}

func (s *spoken) Heartbeat(details any) error {
	data, _ := json.Marshal(details)
	s.reports = append(s.reports, string(data))
	if len(data) > engine.MaxDetails/2 {
		return errors.New("too much")
	}
	return nil
}

// Lines that report are no lines of the log, and what only looks like them is.
func TestReports(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("x", 5000) + `"`
	for _, tt := range []struct{ line, report, logged string }{
		{"::progress 3/10 copying  files ", `3 of 10 "copying  files"`, ""},
		{"::progress 3\r", `3 of 0 ""`, ""},
		{"::progress 3 of 10", `3 of 0 "of 10"`, ""},
		{"::progress  0/0", `0 of 0 ""`, ""},
		{"::progress", "", "::progress"},
		{"::progress -1/10", "", "::progress -1/10"},
		{"::progress 1/-10", "", "::progress 1/-10"},
		{"::progress 1/", "", "::progress 1/"},
		{"::progress 50%", "", "::progress 50%"},
		{" ::progress 1", "", " ::progress 1"},
		{"::progressing 1", "", "::progressing 1"},
		{"::heartbeat", "null", ""},
		{`::heartbeat {"page": 7}`, `{"page":7}`, ""},
		{"::heartbeat page 7", "", "::heartbeat page 7"},
		{"::heartbeat " + long, long, "too much"},
	} {
		job := &spoken{}
		l := &lines{job: job}
		if _, err := l.Write([]byte(tt.line + "\n")); err != nil {
			t.Error(err)
		}
		if got := strings.Join(job.reports, "|"); got != tt.report {
			t.Errorf("%q reports %q, want %q", tt.line, got, tt.report)
		}
		if got := strings.Join(job.lines, "|"); got != tt.logged {
			t.Errorf("%q is logged as %q, want %q", tt.line, got, tt.logged)
		}
	}
	job := &spoken{}
	l := &lines{job: job}
	_, _ = l.Write([]byte("::heartbeat [" + strings.Repeat("1,", maxLine) + "1]\n"))
	if len(job.reports) > 0 || len(job.lines) != 1 {
		t.Errorf("a report that was cut is taken as %q and %d lines", job.reports, len(job.lines))
	}
}

// What a command writes to standard output is its result: JSON, or a string.
func TestCapture(t *testing.T) {
	t.Parallel()
	tests := []struct{ output, want string }{
		{"", ""},
		{" \n", ""},
		{"42\n", "42"},
		{" {\"a\": [1]}\n\n", `{"a": [1]}`},
		{"null", "null"},
		{"hello\n", `"hello"`},
		{"a\nb\r\n\n", `"a\nb"`},
		{" <b>&\n", `" <b>&"`},
		{"1 2", `"1 2"`},
		{"\xff", `"\ufffd"`},
		{strings.Repeat("x", 99), "the command wrote 99 bytes, and a result has up to 64: put it elsewhere and print a reference"},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 7, 1000} {
			c := &capture{limit: 64}
			for rest := []byte(tt.output); len(rest) > 0; {
				n := min(size, len(rest))
				if m, err := c.Write(rest[:n]); m != n || err != nil {
					t.Fatalf("Write = %d, %v", m, err)
				}
				rest = rest[n:]
			}
			result, err := c.result()
			got := string(bytes.TrimSpace(result))
			if err != nil {
				got = fmt.Sprint(err)
			}
			if got != tt.want {
				t.Errorf("%q in pieces of %d: got %s, want %s", tt.output, size, got, tt.want)
			}
		}
	}
}

// The guard kills what was started and has not ended, and never a group that
// cannot be a command's.
func TestGuard(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]map[int]bool{
		"":                            {},
		"+12\n+13\n-12\n":             {13: true},
		"+12\n-12\n+12\n":             {12: true},
		"+0\n+1\n+-5\n++\nnoise\n+\n": {},
		"+12\n-13\n+14":               {12: true, 14: true},
	} {
		if diff := cmp.Diff(want, watchOver(strings.NewReader(said))); diff != "" {
			t.Errorf("after %q (-want +got):\n%s", said, diff)
		}
	}
}
