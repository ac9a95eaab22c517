package spec

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
)

// Event is a message that may start jobs.
type Event struct {
	Subject  string
	Data     []byte
	Header   map[string][]string
	Time     time.Time
	Sequence uint64 // in its stream
}

// The variables of expressions about events.
const (
	subjectVar  = "event.subject"
	dataVar     = "event.data"
	headersVar  = "event.headers"
	timeVar     = "event.time"
	sequenceVar = "event.sequence"
)

func eventLanguage() *language {
	return newLanguage("event",
		variable{subjectVar, cel.StringType},
		variable{dataVar, cel.DynType},
		variable{headersVar, cel.MapType(cel.StringType, cel.StringType)},
		variable{timeVar, cel.TimestampType},
		variable{sequenceVar, cel.IntType},
	)
}

// input returns the data of the event as JSON: as it is if it is JSON, otherwise
// as a string.
func (e Event) input() json.RawMessage {
	if json.Valid(e.Data) {
		return e.Data
	}
	return encode(e.text())
}

// text returns the data of an event that is not JSON: nil if there is none, the
// text if it is UTF-8, otherwise base64.
func (e Event) text() any {
	switch {
	case len(e.Data) == 0:
		return nil
	case utf8.Valid(e.Data):
		return string(e.Data)
	}
	return base64.StdEncoding.EncodeToString(e.Data)
}

// variables resolves the variables of expressions for one event; it reads data
// and headers when they are first asked for. It is for one goroutine.
type variables struct {
	event   Event
	data    any
	decoded bool
	headers map[string]string
}

// ResolveName implements cel.Activation.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case subjectVar:
		return v.event.Subject, true
	case dataVar:
		return v.decode(), true
	case headersVar:
		return v.firstHeaders(), true
	case timeVar:
		return v.event.Time, true
	case sequenceVar:
		return int64(v.event.Sequence), true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (v *variables) Parent() cel.Activation { return nil }

// decode returns the data as CEL takes it. Numbers stay as they are written:
// CEL makes integers of those that are.
func (v *variables) decode() any {
	if v.decoded {
		return v.data
	}
	v.decoded = true
	if !json.Valid(v.event.Data) {
		v.data = v.event.text()
		return v.data
	}
	dec := json.NewDecoder(bytes.NewReader(v.event.Data))
	dec.UseNumber()
	if err := dec.Decode(&v.data); err != nil {
		v.data = v.event.text()
	}
	return v.data
}

func (v *variables) firstHeaders() map[string]string {
	if v.headers == nil {
		v.headers = make(map[string]string, len(v.event.Header))
		for name, values := range v.event.Header {
			if len(values) > 0 {
				v.headers[name] = values[0]
			}
		}
	}
	return v.headers
}
