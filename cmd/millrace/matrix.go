package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

// matrix shows how the parts of a broadcast stand while they move. On a terminal
// it is drawn again in place, elsewhere every change of a part is a line.
type matrix struct {
	e        *env
	look     func(context.Context) (engine.BroadcastInfo, error)
	terminal *os.File // nil if there is none to draw on
	colour   bool
	seen     map[string]string // how each part stood, as it was printed
	drawn    int               // lines on the terminal
}

const (
	// soonest is how soon a matrix looks again.
	soonest = 100 * time.Millisecond
	// leisure is how much longer than a look took it waits until the next one: who
	// watches is not to keep those busy who work.
	leisure = 10
	// matrixMargin is how many lines of a terminal are for other than parts.
	matrixMargin = 4
)

// await waits until a broadcast has ended, and shows its parts meanwhile to
// whoever reads tables.
func (e *env) await(ctx context.Context, eng *engine.Engine, id string) (engine.BroadcastInfo, error) {
	m := newMatrix(e, func(ctx context.Context) (engine.BroadcastInfo, error) { return eng.GetBroadcast(ctx, id) })
	err := together(ctx, m.run, func(ctx context.Context) error {
		_, err := eng.Wait(ctx, id)
		return err
	})
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return engine.BroadcastInfo{}, fmt.Errorf("%w; the broadcast goes on: see millrace broadcast get %s --wait", errInterrupted, id)
	}
	if err != nil {
		return engine.BroadcastInfo{}, err
	}
	info, err := broadcast(ctx, e, eng, id)
	if err == nil {
		m.end(info)
	}
	return info, err
}

func newMatrix(e *env, look func(context.Context) (engine.BroadcastInfo, error)) *matrix {
	m := &matrix{e: e, look: look, colour: os.Getenv("NO_COLOR") == "", seen: map[string]string{}}
	if f, ok := e.stdout.(*os.File); ok {
		if _, _, ok := show.Size(f); ok {
			m.terminal = f
		}
	}
	return m
}

// run looks and shows until ctx ends. What it cannot see, as while NATS is away,
// stays as it was.
func (m *matrix) run(ctx context.Context) error {
	if m.e.Output == "json" {
		<-ctx.Done()
		return nil
	}
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
		began := time.Now()
		info, err := m.look(ctx)
		if err == nil {
			m.show(info)
		}
		again.Reset(max(soonest, leisure*time.Since(began)))
	}
}

// show shows how a broadcast stands.
func (m *matrix) show(info engine.BroadcastInfo) {
	if m.terminal == nil {
		m.changes(info)
		return
	}
	if width, height, ok := show.Size(m.terminal); ok {
		m.draw(matrixText(info, frame{max(1, height-matrixMargin), width, m.colour, time.Now()}))
	}
}

// end shows the last changes, and clears the terminal for what is printed for good.
func (m *matrix) end(info engine.BroadcastInfo) {
	switch {
	case m.e.Output == "json":
	case m.terminal == nil:
		m.changes(info)
	default:
		m.draw("")
	}
}

// draw draws text over what was drawn before.
func (m *matrix) draw(text string) {
	var buf bytes.Buffer
	if m.drawn > 0 {
		fmt.Fprintf(&buf, "\x1b[%dA\x1b[J", m.drawn)
	}
	buf.WriteString(text)
	m.drawn = strings.Count(text, "\n")
	_, _ = m.terminal.Write(buf.Bytes())
}

// changes prints a line for each part that does not stand as it did.
func (m *matrix) changes(info engine.BroadcastInfo) {
	now := time.Now().Format("15:04:05.000")
	for _, p := range info.Parts {
		line := fmt.Sprintf("%-9s  %s", p.State, partTitle(p))
		if n := attempts(p); n != "" {
			line += "  attempt " + n
		}
		if t := show.Took(p.Started, p.Ended); t != "" {
			line += "  after " + t
		}
		if why := show.Message(p.Error); why != "" {
			line += "  " + show.Plain(why, widestCell)
		}
		before, known := m.seen[partName(p)]
		m.seen[partName(p)] = line
		if known && line == before || !known && p.State == "waiting" {
			continue
		}
		fmt.Fprintf(m.e.stdout, "%s  %s\n", now, line)
	}
}

// partTitle names a part, with the node if it is a shard.
func partTitle(p engine.PartInfo) string {
	switch {
	case p.Shard == nil:
		return p.Node
	case p.Node == "":
		return "shard " + partName(p)
	}
	return fmt.Sprintf("shard %s on %s", partName(p), p.Node)
}

// frame is what a matrix is drawn into.
type frame struct {
	rows, width int
	colour      bool
	now         time.Time
}

// matrixText returns a broadcast as lines: how many parts have ended, and a line a
// part. If there is no room for all of them those that have ended are left out.
func matrixText(info engine.BroadcastInfo, f frame) string {
	var buf strings.Builder
	shown := info.Parts
	if len(shown) > f.rows {
		shown = nil
		for _, p := range info.Parts {
			if !ended(p) {
				shown = append(shown, p)
			}
		}
	}
	more := max(0, len(shown)-f.rows)
	shown = shown[:len(shown)-more]
	t := show.Table(&buf)
	t.Style().Size.WidthMax = f.width
	header := []any{"node", "state", "attempts", "time", "error"}
	if sharded(info) {
		header = append([]any{"shard"}, header...)
	}
	t.AppendHeader(header)
	for _, p := range shown {
		row := []any{p.Node, show.State(p.State, f.colour), attempts(p), length(p, f.now), show.Plain(show.Message(p.Error), widestCell)}
		if sharded(info) {
			row = append([]any{partName(p)}, row...)
		}
		t.AppendRow(row)
	}
	t.Render()
	if more > 0 {
		fmt.Fprintf(&buf, "… %d more that have not ended\n", more)
	}
	fmt.Fprintf(&buf, "\n%s\n", show.Plain(summary(info), f.width))
	return buf.String()
}

func ended(p engine.PartInfo) bool {
	switch p.State {
	case "succeeded", "failed", "lost", "cancelled":
		return true
	}
	return false
}

// length returns how long a part took, or runs by now.
func length(p engine.PartInfo, now time.Time) string {
	if p.Started != nil && !ended(p) {
		return show.Length(max(0, now.Sub(*p.Started)).Truncate(time.Second))
	}
	return show.Took(p.Started, p.Ended)
}

// summary says in one line how many parts have ended, and how.
func summary(info engine.BroadcastInfo) string {
	count := map[string]int{}
	over := 0
	for _, p := range info.Parts {
		count[p.State]++
		if ended(p) {
			over++
		}
	}
	text := fmt.Sprintf("%s: %d of %s ended", info.ID, over, show.Count(len(info.Parts), pieces(info.Children)))
	for _, state := range []string{"succeeded", "failed", "lost", "cancelled", "running", "retrying"} {
		if n := count[state]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, state)
		}
	}
	return text
}
