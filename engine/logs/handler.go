package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"time"
)

// Level is the lowest level that is stored, whatever the process logs.
const Level = slog.LevelInfo

// handler turns records into lines. The standard library encodes the
// attributes, in a group of their own, which tells them from the rest.
type handler struct {
	w *Writer
	// steps lead from a new encoder to one with the attributes and groups that
	// the logger has.
	steps []func(slog.Handler) slog.Handler
}

// attrsKey is the group of the attributes.
const attrsKey = "attrs"

// onlyAttrs leaves out what a line has elsewhere.
func onlyAttrs(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 {
		return slog.Attr{}
	}
	return a
}

// Enabled implements [slog.Handler].
func (h handler) Enabled(_ context.Context, level slog.Level) bool { return level >= Level }

// Handle implements [slog.Handler]. It never fails and never waits.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	line := Line{Time: r.Time, Level: r.Level, Text: r.Message}
	if line.Time.IsZero() {
		line.Time = time.Now()
	}
	if r.NumAttrs() > 0 || len(h.steps) > 0 {
		line.Attrs = h.attrs(ctx, r)
	}
	h.w.say(line)
	return nil
}

// attrs returns the attributes of a record and of the logger as a JSON object,
// or nil if there are none.
func (h handler) attrs(ctx context.Context, r slog.Record) json.RawMessage {
	var buf bytes.Buffer
	enc := slog.NewJSONHandler(&buf, &slog.HandlerOptions{Level: r.Level, ReplaceAttr: onlyAttrs}).WithGroup(attrsKey)
	for _, step := range h.steps {
		enc = step(enc)
	}
	var got map[string]json.RawMessage
	if enc.Handle(ctx, r) != nil || json.Unmarshal(buf.Bytes(), &got) != nil {
		return nil // the encoder writes JSON, whatever it is given
	}
	return got[attrsKey]
}

// WithAttrs implements [slog.Handler].
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(attrs) == 0 {
		return h
	}
	return h.with(func(enc slog.Handler) slog.Handler { return enc.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (h handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	return h.with(func(enc slog.Handler) slog.Handler { return enc.WithGroup(name) })
}

func (h handler) with(step func(slog.Handler) slog.Handler) handler {
	h.steps = append(h.steps[:len(h.steps):len(h.steps)], step)
	return h
}
