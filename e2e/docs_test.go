//go:build unix

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/cluster"
	"github.com/millrace/millrace/internal/natstest"
)

// patience is how long a command of the docs may take.
const patience = 90 * time.Second

// Every command of the docs does what the page says. A block ```console holds
// commands, after "$ ", and what they print, where … stands for anything; a
// block with file=NAME is a file that they use.
func TestDocs(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			newReader(t).read(elsewhere(t, string(text)))
		})
	}
}

// elsewhere returns a page in which each fixed port is one that nobody has, since
// several of those who read it may be on this machine.
func elsewhere(t *testing.T, page string) string {
	t.Helper()
	free := map[string]string{}
	return regexp.MustCompile(`127\.0\.0\.1:[1-9]\d*`).ReplaceAllStringFunc(page, func(address string) string {
		if free[address] == "" {
			free[address] = fmt.Sprint("127.0.0.1:", natstest.Port(t))
		}
		return free[address]
	})
}

// reader is somebody who does what a page says, in one shell.
type reader struct {
	t   *testing.T
	dir string
	env []string
}

func newReader(t *testing.T) *reader {
	r := &reader{t: t, dir: t.TempDir()}
	r.env = append(os.Environ(), "PATH="+filepath.Dir(cluster.Millrace(t))+":"+os.Getenv("PATH"))
	return r
}

var block = regexp.MustCompile("(?ms)^```(\\S+)(?: file=(\\S+))?\n(.*?)^```$")

func (r *reader) read(page string) {
	for _, b := range block.FindAllStringSubmatch(page, -1) {
		switch kind, file, text := b[1], b[2], b[3]; {
		case file != "":
			if err := os.WriteFile(filepath.Join(r.dir, file), []byte(text), 0o600); err != nil {
				r.t.Fatal(err)
			}
		case kind == "console":
			r.follow(text)
		}
	}
}

// follow runs the commands of one block.
func (r *reader) follow(text string) {
	for _, part := range strings.Split("\n"+text, "\n$ ")[1:] {
		command, want, _ := strings.Cut(part, "\n")
		if background, ok := strings.CutSuffix(command, " &"); ok {
			r.begin(background)
			continue
		}
		got := r.run(command)
		if !matches(want, got) {
			r.t.Errorf("$ %s\ngot:\n%s\nwant:\n%s", command, got, want)
		}
	}
}

func (r *reader) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Dir, cmd.Env = r.dir, r.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

func (r *reader) run(line string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	out, err := r.command(ctx, line).CombinedOutput()
	if err != nil {
		r.t.Fatalf("$ %s\n%v\n%s", line, err, out)
	}
	return string(out)
}

// begin runs a command in the background. If it prints the URL of a server,
// later commands use it.
func (r *reader) begin(line string) {
	cmd := r.command(context.Background(), "exec "+line)
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Cancel() })
		defer kill.Stop()
		if err := cmd.Wait(); err != nil && r.t.Failed() {
			r.t.Logf("$ %s &\n%v\n%s", line, err, out)
		}
	})
	if !strings.Contains(line, "--listen") {
		return
	}
	r.env = append(r.env, "NATS_URL="+r.url(line, out))
}

// url waits until a command has printed the URL of a server.
func (r *reader) url(line string, out *output) string {
	r.t.Helper()
	url := regexp.MustCompile(`nats://127\.0\.0\.1:\d+`)
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !url.MatchString(out.String()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Fatalf("$ %s &\nprints no URL:\n%s", line, out)
		}
	}
	return url.FindString(out.String())
}

// output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// matches reports whether got is want, where … stands for anything and spaces
// do not count.
func matches(want, got string) bool {
	fields := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	var pattern bytes.Buffer
	pattern.WriteString("(?s)^")
	for n, part := range strings.Split(fields(want), "…") {
		if n > 0 {
			pattern.WriteString(".*")
		}
		pattern.WriteString(regexp.QuoteMeta(strings.TrimSpace(part)))
	}
	return regexp.MustCompile(pattern.String() + `\s*$`).MatchString(fields(got))
}
