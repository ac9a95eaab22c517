package program

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// lines takes what a command writes to its standard error. Each line goes to the
// job's log, but for those that report, which are
//
//	::progress DONE[/TOTAL] [NOTE]
//	::heartbeat [DETAILS]
//
// where the details are JSON, for the next attempt. Whatever begins like that and
// goes on otherwise is a line of the log. The last lines are kept.
type lines struct {
	job interface {
		Say(line string)
		Progress(done, total int64, note string)
		Heartbeat(details any) error
	}
	line []byte // the beginning of the one that is not finished
	cut  bool   // it was longer than that
	last []string
}

const (
	maxLine   = 8 << 10 // bytes of a line that are taken
	lastLines = 3       // how many an error shows
	lastWidth = 300     // how much of each, in bytes
)

// Write never fails.
func (l *lines) Write(b []byte) (int, error) {
	for part := range bytes.Lines(b) {
		text, whole := bytes.CutSuffix(part, []byte("\n"))
		room := maxLine - len(l.line)
		l.cut = l.cut || len(text) > room
		l.line = append(l.line, text[:min(len(text), room)]...)
		if whole {
			l.flush()
		}
	}
	return len(b), nil
}

// flush takes the line that is not finished, if there is one.
func (l *lines) flush() {
	text := strings.ToValidUTF8(strings.TrimRight(string(l.line), "\r"), "\uFFFD")
	cut := l.cut
	l.line, l.cut = l.line[:0], false
	switch {
	case strings.TrimSpace(text) == "":
		return
	case !cut && l.report(text):
		return
	case cut:
		text += "…"
	}
	l.job.Say(text)
	if len(l.last) == lastLines {
		l.last = l.last[1:]
	}
	l.last = append(l.last, strings.TrimSpace(text[:min(len(text), lastWidth)]))
}

// report passes a line on that is a report, and says whether it is.
func (l *lines) report(text string) bool {
	word, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	switch word {
	case "::progress":
		done, total, note, ok := parseProgress(rest)
		if ok {
			l.job.Progress(done, total, note)
		}
		return ok
	case "::heartbeat":
		if rest != "" && !json.Valid([]byte(rest)) {
			return false
		}
		var details any
		if rest != "" {
			details = json.RawMessage(rest)
		}
		if err := l.job.Heartbeat(details); err != nil {
			l.job.Say(err.Error())
		}
		return true
	}
	return false
}

// parseProgress reads DONE[/TOTAL] [NOTE].
func parseProgress(s string) (done, total int64, note string, ok bool) {
	numbers, note, _ := strings.Cut(s, " ")
	first, second, both := strings.Cut(numbers, "/")
	done, err := strconv.ParseInt(first, 10, 64)
	if err == nil && both {
		total, err = strconv.ParseInt(second, 10, 64)
	}
	return done, total, strings.TrimSpace(note), err == nil && done >= 0 && total >= 0
}

// explain adds the last lines to the way in which a command ended.
func (l *lines) explain(end string) string {
	return strings.Join(append([]string{end}, l.last...), " | ")
}
