package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/e2e/proxy"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// echo is a server that says its name, and then what it is told.
func echo(t *testing.T, name string) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer conn.Close()
				fmt.Fprintln(conn, name)
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		done.Wait()
	})
	return listener.Addr().String()
}

// client is somebody at the near end of a link.
type client struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dial(t *testing.T, l *proxy.Link) client {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return client{t, conn, bufio.NewReader(conn)}
}

// hears reads a line.
func (c client) hears(want string) {
	c.t.Helper()
	got, err := c.in.ReadString('\n')
	if err != nil || got != want+"\n" {
		c.t.Fatalf("got %q and %v, want %q", got, err, want)
	}
}

func (c client) says(text string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// ended reads to the end, which must come.
func (c client) ended() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.in); len(rest) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("got %q and %v, want the end", rest, err)
	}
}

// wall looks for a link that lets nobody in.
func wall(t *testing.T, l *proxy.Link) {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr())
	if err != nil {
		return // it was reset before it was made
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	client{t, conn, bufio.NewReader(conn)}.ended()
}

func listen(t *testing.T, target string) *proxy.Link {
	t.Helper()
	l, err := proxy.Listen(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// A link passes what is said, in both directions, and its end, until it is closed.
func TestLink(t *testing.T) {
	t.Parallel()
	l := listen(t, echo(t, "echo"))
	first, second := dial(t, l), dial(t, l)
	first.hears("echo")
	second.hears("echo")
	first.says("hello")
	first.hears("hello")
	if err := first.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	first.ended()
	second.says("still here")
	second.hears("still here")
	l.Close()
	second.ended()
}

// A cut closes both ends, and is a wall until it heals.
func TestLinkCut(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	l := listen(t, listener.Addr().String())
	near, far := meet(t, l, listener)
	l.Cut()
	near.ended()
	far.ended()
	wall(t, l)
	l.Heal()
	meet(t, l, listener)
}

// meet makes a connection through a link, and returns both ends of it when the
// near one has heard the far one.
func meet(t *testing.T, l *proxy.Link, listener net.Listener) (near, far client) {
	t.Helper()
	near = dial(t, l)
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	far = client{t, conn, bufio.NewReader(conn)}
	far.says("hello")
	near.hears("hello")
	return near, far
}

// A link that drops takes connections and is silent; what was said arrives when
// it heals.
func TestLinkDrop(t *testing.T) {
	t.Parallel()
	l := listen(t, echo(t, "echo"))
	before := dial(t, l)
	before.hears("echo")
	l.Drop()
	before.says("late")
	during := dial(t, l)
	during.says("later")
	silent(t, before.conn, during.conn)
	l.Heal()
	before.hears("late")
	during.hears("echo")
	during.hears("later")
	l.Drop()
	l.Cut()
	before.ended()
}

// silent looks for anything that arrives. It is not sure to find what comes
// late, and never finds what does not come.
func silent(t *testing.T, conns ...net.Conn) {
	t.Helper()
	for _, conn := range conns {
		_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %d bytes and %v on a link that drops", n, err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
	}
}

// Nobody at the other end looks like a link to nowhere.
func TestLinkNobody(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listen(t, listener.Addr().String())
	listener.Close()
	wall(t, l)
}
