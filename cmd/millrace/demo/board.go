package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/millrace/millrace/cmd/millrace/show"
	"github.com/millrace/millrace/engine"
)

// board shows jobs as they move. On a terminal it is drawn again in place,
// otherwise once at the end.
type board struct {
	out      io.Writer
	terminal *os.File // nil if nobody watches
	colour   bool

	mu     sync.Mutex
	jobs   map[string]engine.JobInfo
	order  []string // of their first appearance
	events int      // sent so far
	moved  time.Time
	drawn  int // lines on the terminal
}

const (
	// frame is how often the board is drawn.
	frame = 60 * time.Millisecond
	// boardRows is how many jobs it shows where no terminal says how many fit.
	boardRows = 40
	// widestNews is how much of a result or an error it shows.
	widestNews = 80
	// boardMargin is how many lines of a terminal are for other than jobs.
	boardMargin = 5
)

// newBoard returns a board on out, for a terminal if that is one and live is set.
func newBoard(out io.Writer, live bool) *board {
	b := &board{out: out, jobs: map[string]engine.JobInfo{}, moved: time.Now()}
	if f, ok := out.(*os.File); ok && live {
		if _, _, ok := show.Size(f); ok {
			b.terminal, b.colour = f, os.Getenv("NO_COLOR") == ""
		}
	}
	return b
}

// put takes a change of a job.
func (b *board) put(j engine.JobInfo) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.jobs[j.ID]; !known {
		b.order = append(b.order, j.ID)
	}
	b.jobs[j.ID], b.moved = j, time.Now()
}

// sent takes that an event was sent.
func (b *board) sent() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events, b.moved = b.events+1, time.Now()
}

// count returns how many jobs there are, how many of them have not ended, and
// for how long nothing has moved.
func (b *board) count() (all, open int, still time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, j := range b.jobs {
		if !j.Ended() {
			open++
		}
	}
	return len(b.jobs), open, time.Since(b.moved)
}

// run draws the board until ctx ends, if there is a terminal to draw on.
func (b *board) run(ctx context.Context) error {
	if b.terminal == nil {
		<-ctx.Done()
		return nil
	}
	fmt.Fprint(b.out, "\x1b[?25l")       // no cursor
	defer fmt.Fprint(b.out, "\x1b[?25h") // a cursor
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			b.draw(false)
		}
	}
}

// draw draws the board over what it drew before. The last time it shows as
// many jobs as anybody may want to scroll through.
func (b *board) draw(last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows, width := boardRows, 0
	if b.terminal != nil && !last {
		if w, h, ok := show.Size(b.terminal); ok {
			rows, width = max(1, h-boardMargin), w
		}
	}
	var buf bytes.Buffer
	if b.drawn > 0 {
		fmt.Fprintf(&buf, "\x1b[%dA\x1b[J", b.drawn)
	}
	text := b.table(rows, width)
	if !last {
		text += b.progress()
	}
	b.drawn = strings.Count(text, "\n")
	buf.WriteString(text)
	_, _ = b.out.Write(buf.Bytes())
}

// progress returns what stands below the jobs while they move.
func (b *board) progress() string {
	ended := 0
	for _, j := range b.jobs {
		if j.Ended() {
			ended++
		}
	}
	return fmt.Sprintf("\n%s sent, %d of %s ended\n", show.Count(b.events, "event"), ended, show.Count(len(b.jobs), "job"))
}

// table returns the last jobs, up to a number, in lines of a width.
func (b *board) table(rows, width int) string {
	var buf strings.Builder
	shown := b.order
	if hidden := len(shown) - rows; hidden > 0 {
		shown = shown[hidden:]
		fmt.Fprintf(&buf, "… %d more above\n", hidden)
	}
	t := show.Table(&buf)
	if width > 0 {
		t.Style().Size.WidthMax = width
	}
	t.AppendHeader(table.Row{"job", "kind", "state", "attempt", "took", "result"})
	for _, id := range shown {
		j := b.jobs[id]
		t.AppendRow(table.Row{j.ID, j.Kind, show.State(j.State, b.colour), show.Attempt(j), show.Took(j.Created, j.Finished), show.Plain(news(j), widestNews)})
	}
	t.Render()
	return buf.String()
}

// news returns what there is to say about a job: its result, and what went
// wrong last.
func news(j engine.JobInfo) string {
	trouble := show.Message(j.Error)
	for _, a := range j.Attempts {
		if a.Error != nil && trouble == "" {
			trouble = show.Message(a.Error)
		}
	}
	if j.State != "succeeded" {
		return trouble
	}
	result := string(j.Result)
	if err := json.Unmarshal(j.Result, &result); err != nil {
		result = string(j.Result)
	}
	if trouble != "" {
		result += " (at first: " + trouble + ")"
	}
	return result
}

// finish shows the jobs as they ended, for good.
func (b *board) finish(jobs []engine.JobInfo) {
	for _, j := range jobs {
		b.put(j)
	}
	b.draw(true)
	fmt.Fprintln(b.out)
}
