package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/streams"
)

// MaxLine is how much a line holds, in bytes: its text and its attributes
// together, before what JSON adds.
const MaxLine = 8 << 10

// Line is something that a handler said about its job. Its JSON is stable:
// programs rely on it.
type Line struct {
	Time    time.Time  `json:"time"` // by the clock of the node, in UTC
	Level   slog.Level `json:"level"`
	Attempt int        `json:"attempt"`
	Node    string     `json:"node"`
	Text    string     `json:"text"`
	// Attrs are the attributes as a JSON object, in their order; nil if there
	// are none.
	Attrs json.RawMessage `json:"attrs,omitempty"`
	// Cut is set if the line was longer than [MaxLine]. Attributes that take
	// more than half of that are left out.
	Cut bool `json:"cut,omitempty"`
	// Dropped is how many lines are missing here, in a line that says so.
	Dropped int `json:"dropped,omitempty"`
}

// stored is a line in the stream. The fence tells attempts apart, also those of
// jobs that had the same ID one after the other; the number counts the lines of
// an attempt, from 1, so that one that was stored twice is known.
type stored struct {
	Fence  uint64 `json:"fence"`
	Number uint64 `json:"number"`
	Line
}

const (
	lineType    = "line"
	lineVersion = 1
)

// message returns the line as it is published.
func (s stored) message(subject string) (*nats.Msg, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return &nats.Msg{Subject: subject, Header: streams.Envelope{Type: lineType, Version: lineVersion}.Header(), Data: body}, nil
}

// decode reads a message of the stream.
func decode(h nats.Header, data []byte) (stored, error) {
	env, err := streams.Decode(h, data, lineType, lineVersion)
	if err != nil {
		return stored{}, err
	}
	var s stored
	if err := json.Unmarshal(env.Body, &s); err != nil {
		return stored{}, fmt.Errorf("logs: decode line: %w", err)
	}
	if s.Attrs = bytes.TrimSpace(s.Attrs); string(s.Attrs) == "null" {
		s.Attrs = nil
	}
	if len(s.Attrs) > 0 && s.Attrs[0] != '{' {
		return stored{}, errors.New("logs: decode line: its attributes are no object")
	}
	return s, nil
}

// fit cuts a line that is too long.
func (l *Line) fit() {
	if len(l.Attrs) > MaxLine/2 {
		l.Attrs, l.Cut = nil, true
	}
	l.Text = strings.ToValidUTF8(l.Text, "\uFFFD")
	if room := MaxLine - len(l.Attrs); len(l.Text) > room {
		for room > 0 && !utf8.RuneStart(l.Text[room]) {
			room--
		}
		l.Text, l.Cut = l.Text[:room], true
	}
}
