package publish

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/nats-io/nats.go/jetstream"
)

// Ack tells where a message was stored.
type Ack struct {
	Stream    string
	Sequence  uint64
	Duplicate bool // it was there already, under its Nats-Msg-Id
}

// maxNames bounds how many names of streams a publisher remembers.
const maxNames = 64

// names holds names of streams, so that an answer costs no memory.
type names map[string]string

func (n names) get(name []byte) string {
	if s, ok := n[string(name)]; ok {
		return s
	}
	s := string(name)
	if len(n) < maxNames {
		n[s] = s
	}
	return s
}

// parse reads the answer of a stream. It returns a *jetstream.APIError if the
// stream refused the message.
func parse(data []byte, names names) (Ack, error) {
	if ack, ok := parseFast(data, names); ok {
		return ack, nil
	}
	return parseSlow(data)
}

// parseFast reads what nearly every answer looks like: {"stream":"X", "seq":1},
// with the domain in between where the server has one. It reports false for
// everything else.
func parseFast(data []byte, names names) (Ack, bool) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"stream":"`))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 1 {
		return Ack{}, false
	}
	name, rest := rest[:end], rest[end+1:]
	rest, ok = bytes.CutPrefix(rest, []byte(`,`))
	if !ok || !plain(name) {
		return Ack{}, false
	}
	if rest, ok = cutDomain(rest); !ok {
		return Ack{}, false
	}
	rest, ok = bytes.CutPrefix(bytes.TrimPrefix(rest, []byte(` `)), []byte(`"seq":`))
	if !ok {
		return Ack{}, false
	}
	seq, rest, ok := cutNumber(rest)
	if !ok || string(rest) != "}" {
		return Ack{}, false
	}
	return Ack{Stream: names.get(name), Sequence: seq}, true
}

// cutDomain reads over the domain, if b starts with one.
func cutDomain(b []byte) (rest []byte, ok bool) {
	rest, found := bytes.CutPrefix(bytes.TrimPrefix(b, []byte(` `)), []byte(`"domain":"`))
	if !found {
		return b, true
	}
	domain, rest, ok := bytes.Cut(rest, []byte(`",`))
	return rest, ok && plain(domain) && bytes.IndexByte(domain, '"') < 0
}

// plain reports whether JSON keeps name as it is.
func plain(name []byte) bool {
	for _, c := range name {
		if c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// cutNumber reads the number that b starts with.
func cutNumber(b []byte) (n uint64, rest []byte, ok bool) {
	i := 0
	for ; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
		if n > math.MaxUint64/10-1 {
			return 0, nil, false
		}
		n = n*10 + uint64(b[i]-'0')
	}
	return n, b[i:], i > 0 && (b[0] != '0' || i == 1)
}

// parseSlow reads any answer of a stream.
func parseSlow(data []byte) (Ack, error) {
	var answer struct {
		Stream    string              `json:"stream"`
		Sequence  uint64              `json:"seq"`
		Duplicate bool                `json:"duplicate"`
		Error     *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return Ack{}, fmt.Errorf("publish: read answer: %w: %w", ErrUnknown, err)
	}
	if answer.Error != nil {
		return Ack{}, answer.Error
	}
	if answer.Stream == "" {
		return Ack{}, fmt.Errorf("publish: read answer: %w: %w", ErrUnknown, jetstream.ErrInvalidJSAck)
	}
	return Ack{answer.Stream, answer.Sequence, answer.Duplicate}, nil
}
