package embedded

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// bridge is the server's logger: it hands everything to slog, and remembers the
// first thing that kept the server from starting.
type bridge struct {
	log   *slog.Logger
	ready atomic.Bool // the server has read its data

	mu    sync.Mutex
	fatal error
}

// failure returns what kept the server from starting.
func (b *bridge) failure() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fatal
}

// Noticef takes what the server reports in its normal life.
func (b *bridge) Noticef(format string, v ...any) {
	b.log.Debug("nats server reports", "text", fmt.Sprintf(format, v...))
}

// Warnf takes what the server warns of. While it reads its data it warns of what
// it puts right itself, many times after its process was killed.
func (b *bridge) Warnf(format string, v ...any) {
	say := b.log.Debug
	if b.ready.Load() {
		say = b.log.Warn
	}
	say("nats server warns", "text", fmt.Sprintf(format, v...))
}

// Errorf takes what the server failed at.
func (b *bridge) Errorf(format string, v ...any) {
	b.log.Error("nats server failed", "err", fmt.Sprintf(format, v...))
}

// Fatalf takes what keeps the server from starting. Whoever starts it handles
// that, so it is not logged here.
func (b *bridge) Fatalf(format string, v ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fatal == nil {
		b.fatal = fmt.Errorf(format, v...)
	}
}

// Debugf is never called: it is not switched on.
func (b *bridge) Debugf(string, ...any) {}

// Tracef is never called: it is not switched on.
func (b *bridge) Tracef(string, ...any) {}
