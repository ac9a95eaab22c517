package enginetest

import (
	"context"
	"log/slog"
)

// voice is where a life logs: nowhere once it is muted, since a killed process
// says nothing, and what processes say at the end of a test is of no interest.
type voice struct {
	slog.Handler
	life  *life
	level slog.Level // the lowest that is heard
}

// Enabled implements [slog.Handler].
func (v voice) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= v.level && !v.life.isMuted() && v.Handler.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (v voice) WithAttrs(attrs []slog.Attr) slog.Handler {
	return voice{v.Handler.WithAttrs(attrs), v.life, v.level}
}

// WithGroup implements [slog.Handler].
func (v voice) WithGroup(name string) slog.Handler {
	return voice{v.Handler.WithGroup(name), v.life, v.level}
}

// logger returns the logger of one life of the process. The test's own process
// only makes the namespace, which is hardly news.
func (p *Process) logger(l *life) *slog.Logger {
	v := voice{p.env.opts.Logger.With("process", p.node).Handler(), l, slog.LevelDebug}
	if p.program == nil {
		v.level = slog.LevelWarn
	}
	return slog.New(v)
}
