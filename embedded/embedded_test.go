package embedded_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/embedded"
)

// holdFolder names the variable that turns the test binary into a process that
// runs a server on a folder until its input ends.
const holdFolder = "EMBEDDED_TEST_FOLDER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdFolder); dir != "" {
		hold(dir)
		return
	}
	os.Exit(m.Run())
}

func hold(dir string) {
	srv, err := embedded.Start(context.Background(), embedded.Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	fmt.Println("running")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// quiet drops all log records.
var quiet = slog.New(slog.DiscardHandler)

// start runs a server until the test ends.
func start(t *testing.T, opts embedded.Options) *embedded.Server {
	t.Helper()
	opts.Logger = quiet
	srv, err := embedded.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	return srv
}

// connect returns JetStream on srv.
func connect(t *testing.T, srv *embedded.Server) jetstream.JetStream {
	t.Helper()
	nc, err := srv.Connect()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// oneLine reports an error that is not a single line with all of parts in it.
func oneLine(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want one with %q", parts)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q, want one line", err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("got %q, want it to say %q", err, p)
		}
	}
}

// Data is there again after a restart on the same folder.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, sync := range []embedded.Sync{"", embedded.SyncDefault, embedded.SyncAlways} {
		t.Run("sync="+string(sync), func(t *testing.T) {
			t.Parallel()
			opts := embedded.Options{Dir: filepath.Join(t.TempDir(), "made", "here"), Sync: sync}
			srv := start(t, opts)
			if got, want := srv.JetStream().SyncAlways, sync == embedded.SyncAlways; got != want {
				t.Errorf("the server syncs always: %v, want %v", got, want)
			}
			kv, err := connect(t, srv).CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := kv.PutString(t.Context(), "k", "kept"); err != nil {
				t.Fatal(err)
			}
			srv.Close()

			kv, err = connect(t, start(t, opts)).KeyValue(t.Context(), "b")
			if err != nil {
				t.Fatal(err)
			}
			got, err := kv.Get(t.Context(), "k")
			if err != nil || string(got.Value()) != "kept" {
				t.Errorf("after a restart got %v, %v; want the value", got, err)
			}
		})
	}
}

// Without an address the server has no port; with one it is found by its URL.
func TestListen(t *testing.T) {
	t.Parallel()
	if got := start(t, embedded.Options{Dir: t.TempDir()}).URL(); got != "" {
		t.Errorf("a server without a port is at %q", got)
	}
	srv := start(t, embedded.Options{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	nc, err := nats.Connect(srv.URL())
	if err != nil {
		t.Fatalf("connect to %q: %v", srv.URL(), err)
	}
	defer nc.Close()
	if got := nc.ConnectedServerVersion(); got != embedded.Version() {
		t.Errorf("the server says %q, want %q", got, embedded.Version())
	}
}

// A connection is made for ever, and keeps no writes while it is away.
func TestConnectOptions(t *testing.T) {
	t.Parallel()
	nc, err := start(t, embedded.Options{Dir: t.TempDir()}).Connect(nats.Name("me"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if o := nc.Opts; o.MaxReconnect != -1 || o.ReconnectBufSize != -1 || o.Name != "me" {
		t.Errorf("got %d reconnects, buffer %d, name %q; want -1, -1, me", o.MaxReconnect, o.ReconnectBufSize, o.Name)
	}
}

// Closing twice, and at once, is the same as closing once.
func TestClose(t *testing.T) {
	t.Parallel()
	srv := start(t, embedded.Options{Dir: t.TempDir()})
	done := make(chan struct{})
	go func() { defer close(done); srv.Close() }()
	srv.Close()
	<-done
	_, err := srv.Connect()
	oneLine(t, err, "embedded: connect", "closed")
}

// A folder has one server in this process.
func TestSecondStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := start(t, embedded.Options{Dir: dir})
	_, err := embedded.Start(t.Context(), embedded.Options{Dir: dir})
	oneLine(t, err, dir, "another server uses it", "choose another folder")
	if !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	connect(t, first) // still works
	first.Close()
	start(t, embedded.Options{Dir: dir})
}

// A folder has one server on this machine, and is free again when the process
// that had it is killed.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other := exec.CommandContext(t.Context(), os.Args[0])
	other.Env = append(os.Environ(), holdFolder+"="+dir)
	if _, err := other.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "running\n" {
		t.Fatalf("the other process said %q, %v", line, err)
	}
	if _, err := embedded.Start(t.Context(), embedded.Options{Dir: dir}); !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := other.Wait(); err == nil {
		t.Error("the other process ended by itself")
	}
	start(t, embedded.Options{Dir: dir})
}

// What a killed server left is put right without a warning. Here it wrote to a
// stream after it had last written the state of that stream.
func TestKilled(t *testing.T) {
	t.Parallel()
	dir, left := t.TempDir(), t.TempDir()
	for range 2 {
		srv := start(t, embedded.Options{Dir: dir})
		js := connect(t, srv)
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := js.Publish(t.Context(), "s", nil); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(left); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		srv.Close()
	}
	var out bytes.Buffer
	srv, err := embedded.Start(t.Context(), embedded.Options{
		Dir: left, Logger: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Close()
	if said := out.String(); !strings.Contains(said, `level=DEBUG msg="nats server warns"`) || strings.Contains(said, "level=WARN") {
		t.Errorf("it has no warning at debug level, or one above: %s", said)
	}
}

// What cannot work is refused in one line that says what to do, and the folder
// is free afterwards.
func TestStartErrors(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	busy := ln.Addr().String()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "jetstream"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	tests := []struct {
		name string
		opts embedded.Options
		says []string
	}{
		{"no folder", embedded.Options{}, []string{"set Dir"}},
		{"folder is a file", embedded.Options{Dir: file}, []string{file, "choose a folder"}},
		{"store is a file", embedded.Options{Dir: broken}, []string{broken, "start server"}},
		{"port in use", embedded.Options{Dir: dir, Listen: busy}, []string{busy, "in use", "choose another"}},
		{"no port", embedded.Options{Dir: dir, Listen: "localhost"}, []string{`"localhost"`, "host:port"}},
		{"bad port", embedded.Options{Dir: dir, Listen: "localhost:99999"}, []string{"99999", "65535"}},
		{"bad sync", embedded.Options{Dir: dir, Sync: "often"}, []string{`"often"`, `"always"`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.opts.Logger = quiet
			_, err := embedded.Start(t.Context(), test.opts)
			oneLine(t, err, append(test.says, "embedded: ")...)
		})
	}
	t.Run("then it works", func(t *testing.T) { start(t, embedded.Options{Dir: dir}) })
}

// A context that ends before the server runs ends the start.
func TestStartCancelled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("changed my mind")
	cancel(why)
	if _, err := embedded.Start(ctx, embedded.Options{Dir: dir}); !errors.Is(err, why) {
		t.Errorf("got %v, want %v", err, why)
	}
	start(t, embedded.Options{Dir: dir})
}

// A context that ends while the server starts stops it again: here at its first
// word in the log, in the middle of the start.
func TestStartCancelledLater(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(slog.NewTextHandler(writer(func() { cancel() }), &slog.HandlerOptions{Level: slog.LevelDebug}))
	if _, err := embedded.Start(ctx, embedded.Options{Dir: dir, Logger: log}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	start(t, embedded.Options{Dir: dir})
}

// writer is called for each record that is logged.
type writer func()

func (w writer) Write(p []byte) (int, error) { w(); return len(p), nil }
