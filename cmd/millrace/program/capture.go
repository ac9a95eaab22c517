package program

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/engine"
)

// snooze is how long a job rests whose command asked for it and did not say how
// long.
const snooze = time.Second

// capture keeps what is written up to a limit, and counts the rest.
type capture struct {
	limit int
	kept  bytes.Buffer
	size  int
}

// Write never fails, so that who writes is never stopped.
func (c *capture) Write(b []byte) (int, error) {
	c.size += len(b)
	c.kept.Write(b[:min(len(b), c.limit-c.kept.Len())])
	return len(b), nil
}

// result returns what was written: as JSON if it is, otherwise as a string
// without the ends of lines that follow it, as the shell has it.
func (c *capture) result() (json.RawMessage, error) {
	if c.size > c.limit {
		return nil, engine.Fail(fmt.Errorf("the command wrote %d bytes, and a result has up to %d: put it elsewhere and print a reference", c.size, c.limit))
	}
	text := bytes.TrimSpace(c.kept.Bytes())
	switch {
	case len(text) == 0:
		return nil, nil
	case json.Valid(text):
		return text, nil
	}
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false)
	err := enc.Encode(strings.TrimRight(c.kept.String(), "\r\n"))
	return quoted.Bytes(), err
}

// rest returns for how long the command wants to be left alone: what it wrote,
// if that is a duration.
func (c *capture) rest() time.Duration {
	d, err := time.ParseDuration(strings.TrimSpace(c.kept.String()))
	if err != nil || d < 0 {
		return snooze
	}
	return d
}
