package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ErrInUse is returned by [Start] while another server has the data folder.
var ErrInUse = errors.New("another server uses it; stop that one, or choose another folder")

// reconnectWait is how long a connection waits between two tries to reconnect.
const reconnectWait = 250 * time.Millisecond

// Server is a NATS server in this process. Its methods may be called from
// several goroutines at once.
type Server struct {
	nats   *server.Server
	listen bool
	lock   *os.File
	close  func()
}

// Version returns the version of the NATS server that is built in, such as
// 2.15.2.
func Version() string { return server.VERSION }

// Start runs a server until [Server.Close]. It returns when the server has read
// its data and takes connections. The context is for starting only: if it has
// ended by then, the server is stopped and the context's error returned. While
// another server uses the same folder, in this process or in another, Start
// fails with [ErrInUse].
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := opts.validate(); err != nil {
		return nil, fmt.Errorf("embedded: start server: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embedded: start server: %w", context.Cause(ctx))
	}
	if err := tryListen(opts.Listen); err != nil {
		return nil, err
	}
	lock, err := lockFolder(opts.Dir)
	if err != nil {
		return nil, err
	}
	srv, err := run(opts)
	if err != nil {
		unlock(lock)
		return nil, err
	}
	s := &Server{nats: srv, listen: opts.Listen != "", lock: lock}
	s.close = sync.OnceFunc(s.stop)
	if ctx.Err() != nil {
		s.Close()
		return nil, fmt.Errorf("embedded: start server: %w", context.Cause(ctx))
	}
	return s, nil
}

// Connect returns a connection to the server that does not use the network. It
// reconnects for ever and never buffers writes while it is away, as Millrace
// asks of every connection. Further options override these. The caller closes it.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	all := append([]nats.Option{
		nats.InProcessServer(s.nats),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.ReconnectWait(reconnectWait),
	}, opts...)
	nc, err := nats.Connect("", all...)
	if err != nil {
		if !s.nats.Running() {
			err = errors.New("the server is closed")
		}
		return nil, fmt.Errorf("embedded: connect: %w", err)
	}
	return nc, nil
}

// URL returns where the server listens, such as nats://127.0.0.1:4222, or
// nothing if it does not listen.
func (s *Server) URL() string {
	if !s.listen {
		return ""
	}
	return s.nats.ClientURL()
}

// Close stops the server, waits until its data is on disk, and frees the folder.
// Closing twice does no harm; every call returns after the server has stopped.
func (s *Server) Close() { s.close() }

func (s *Server) stop() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	unlock(s.lock)
}

// run starts a server with opts. The port is free and the folder locked.
func run(opts Options) (*server.Server, error) {
	conf := &server.Options{
		DontListen:             opts.Listen == "",
		JetStream:              true,
		StoreDir:               opts.Dir,
		SyncAlways:             opts.Sync == SyncAlways,
		NoSigs:                 true,
		DisableJetStreamBanner: true,
	}
	if opts.Listen != "" {
		conf.Host, conf.Port, _ = splitListen(opts.Listen)
	}
	srv, err := server.NewServer(conf)
	if err != nil {
		return nil, fmt.Errorf("embedded: make server: %w", err)
	}
	log := &bridge{log: opts.Logger}
	srv.SetLoggerV2(log, false, false, false)
	srv.Start()
	if err := log.failure(); err != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
		return nil, fmt.Errorf("embedded: start server on folder %s: %w", opts.Dir, err)
	}
	log.ready.Store(true)
	return srv, nil
}

// tryListen reports in one line why nothing can listen on addr. The server
// itself would say it in its log only.
func tryListen(addr string) error {
	if addr == "" {
		return nil
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("embedded: %w; stop what uses the address, or choose another", err)
	}
	return ln.Close()
}

// splitListen returns the parts of an address as the server wants them: there,
// a port that the system chooses is not 0.
func splitListen(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q is not host:port, such as 127.0.0.1:4222", addr)
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("listen address %q has no port between 0 and 65535", addr)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// lockFolder makes the folder if need be and takes it for this server, until unlock.
func lockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("embedded: make data folder: %w; choose a folder that can be written", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("embedded: lock data folder: %w; choose a folder that can be written", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("embedded: lock data folder %s: %w", dir, err)
	}
	return f, nil
}
