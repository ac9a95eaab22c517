package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/internal/natstest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"millrace": main})
}

// Each script has a NATS server of its own; NATS_URL points the command at it.
// Besides the commands of testscript there are
//
//	eventually PATTERN CMD…    run CMD until it succeeds and its output matches
//	until NAME PATTERN FILE    wait until FILE matches, and set NAME to what the group matches
//	status N CMD…              run CMD, which must exit with N
//	http N URL [PATTERN…]      wait until URL answers with status N, and what matches
//	nats stop|start            end the server, start it again on the same port and data
//	nats plain|old|locked|small|leaf  start another server and point NATS_URL at it;
//	                           HUB_URL is where the hub of a leaf node is
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE") != "",
		Setup:               setUp,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually, "until": until, "status": exits, "http": answers, "nats": control,
		},
	})
}

// patience is how long a script waits for what has to come.
const patience = 30 * time.Second

// backend is the NATS server of a script.
type backend struct {
	dir, listen string
	srv         *embedded.Server
	defers      func(func())
}

type backendKey struct{}

func setUp(e *testscript.Env) error {
	b := &backend{dir: e.Getenv("WORK") + "/.nats", listen: fmt.Sprint("127.0.0.1:", natstest.Port(e.T().(testing.TB))), defers: e.Defer}
	if err := b.start(); err != nil {
		return err
	}
	e.Defer(func() { b.srv.Close() })
	e.Values[backendKey{}] = b
	for name, value := range map[string]string{
		"NATS_URL": b.srv.URL(), "TZ": "UTC", "HOME": e.Getenv("WORK") + "/home", "XDG_DATA_HOME": "", "MILLRACE_NAMESPACE": "",
		"GORACE": "atexit_sleep_ms=50", // a second, otherwise, for each command
	} {
		e.Setenv(name, value)
	}
	return nil
}

func (b *backend) start() (err error) {
	b.srv, err = embedded.Start(context.Background(), embedded.Options{
		Dir: b.dir, Listen: b.listen, Logger: slog.New(slog.DiscardHandler),
	})
	return err
}

func control(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: nats stop|start|plain|old|locked|small|leaf")
	}
	b := ts.Value(backendKey{}).(*backend)
	switch args[0] {
	case "stop":
		b.srv.Close()
	case "start":
		ts.Check(b.start())
	case "leaf":
		hub, leaf, err := b.tree(ts.MkAbs(".nats-hub"))
		ts.Check(err)
		poll(ts, func() string { return beyond(leaf) })
		ts.Setenv("HUB_URL", hub)
		ts.Setenv("NATS_URL", leaf)
	default:
		url, err := b.other(args[0], ts.MkAbs(".nats-"+args[0]))
		ts.Check(err)
		ts.Setenv("NATS_URL", url)
	}
}

// other starts a server that lacks something.
func (b *backend) other(kind, dir string) (url string, err error) {
	opts := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, StoreDir: dir, JetStream: true, NoLog: true, NoSigs: true}
	switch kind {
	case "plain", "old":
		opts.JetStream = false
	case "small":
		opts.MaxPayload = 4 << 10
	case "locked":
		opts.Users = []*server.User{
			{Username: "ann", Password: "secret"},
			{Username: "bob", Password: "secret", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: []string{"orders.>"}},
			}},
		}
	default:
		return "", fmt.Errorf("no server is called %s", kind)
	}
	url, err = b.run(opts)
	if err == nil && kind == "old" {
		err = b.pretend(url)
	}
	return url, err
}

// tree starts a server of the JetStream domain hub, and a leaf node of it that
// has no JetStream.
func (b *backend) tree(dir string) (hub, leaf string, err error) {
	options := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, StoreDir: dir, JetStream: true, JetStreamDomain: "hub", NoLog: true, NoSigs: true,
		LeafNode: server.LeafNodeOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT},
	}
	if hub, err = b.run(options); err != nil {
		return "", "", err
	}
	remote := &url.URL{Scheme: "nats-leaf", Host: fmt.Sprintf("127.0.0.1:%d", options.LeafNode.Port)} // the server notes it there
	leaf, err = b.run(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		LeafNode: server.LeafNodeOpts{Remotes: []*server.RemoteLeafOpts{{URLs: []*url.URL{remote}}}},
	})
	return hub, leaf, err
}

// beyond says why a leaf node does not pass on what is asked of its hub.
func beyond(leaf string) (missing string) {
	nc, err := nats.Connect(leaf)
	if err == nil {
		defer nc.Close()
		_, err = nc.Request("$JS.hub.API.INFO", nil, patience/10)
	}
	if err != nil {
		return fmt.Sprintf("the leaf node does not reach its hub: %v", err)
	}
	return ""
}

// run runs a server until the script ends.
func (b *backend) run(opts *server.Options) (url string, err error) {
	srv, err := server.NewServer(opts)
	if err != nil {
		return "", err
	}
	srv.Start()
	b.defers(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(patience) {
		return "", errors.New("the server does not come up")
	}
	return srv.ClientURL(), nil
}

// pretend answers for JetStream as a server before 2.12 does.
func (b *backend) pretend(url string) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	b.defers(nc.Close)
	_, err = nc.Subscribe("$JS.API.INFO", func(m *nats.Msg) {
		_ = m.Respond([]byte(`{"type":"io.nats.jetstream.api.v1.account_info_response","api":{"level":1}}`))
	})
	return errors.Join(err, nc.Flush())
}

// poll calls check until it returns nothing that is missing.
func poll(ts *testscript.TestScript, check func() (missing string)) {
	deadline := time.After(patience)
	for {
		missing := check()
		if missing == "" {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("after %v: %s", patience, missing)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually PATTERN CMD…")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	poll(ts, func() string {
		err := ts.Exec(args[1], args[2:]...)
		if out := ts.ReadFile("stdout"); err != nil || !pattern.MatchString(out) {
			return fmt.Sprintf("%v, and no match for %s in\n%s", err, pattern, out)
		}
		return ""
	})
}

func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: until NAME PATTERN FILE")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	poll(ts, func() string {
		data, err := os.ReadFile(ts.MkAbs(args[2]))
		match := pattern.FindStringSubmatch(string(data))
		if match == nil {
			return fmt.Sprintf("%v, and no match for %s in\n%s", err, pattern, data)
		}
		ts.Setenv(args[0], match[len(match)-1])
		return ""
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: status N CMD…")
	}
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func answers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: http N URL [PATTERN…]")
	}
	client := &http.Client{Timeout: 5 * time.Second}
	defer client.CloseIdleConnections()
	poll(ts, func() string {
		resp, err := client.Get(args[1])
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if strconv.Itoa(resp.StatusCode) != args[0] {
			return fmt.Sprintf("%s answers %s: %s (%v)", args[1], resp.Status, body, err)
		}
		for _, pattern := range args[2:] {
			if !regexp.MustCompile("(?m)" + pattern).Match(body) {
				return fmt.Sprintf("%s answers nothing that matches %s: %s", args[1], pattern, body)
			}
		}
		return ""
	})
}
