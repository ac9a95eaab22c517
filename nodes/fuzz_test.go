package nodes

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/name"
	"github.com/millrace/millrace/kv"
)

// Whatever arrives as a message of one of our types is refused in one line, or
// reads the same after it was written again.
func FuzzMessages(f *testing.F) {
	f.Add("ctl/1", `{"do":"runs","job":"email.1","token":"T","later":1}`)
	f.Add("ctl/1", `{"incarnation":7,"runs":true,"error":"no"}`)
	f.Add("suspect/1", `{"node":"n1","incarnation":7}`)
	f.Add("ctl/2", `{}`)
	f.Add("ctl/0", `[]`)
	f.Add("", ``)
	f.Fuzz(func(t *testing.T, typ, body string) {
		msg := &nats.Msg{Header: nats.Header{"Mr-Type": {typ}}, Data: []byte(body)}
		rewrite[request](t, msg, ctlType, ctlVersion)
		rewrite[reply](t, msg, ctlType, ctlVersion)
		rewrite[suspicion](t, msg, suspectType, suspectVersion)
		_, _ = readReply(msg)
	})
}

func rewrite[T any](t *testing.T, msg *nats.Msg, typ string, version int) {
	t.Helper()
	v, err := decode[T](msg, typ, version)
	if err != nil {
		if strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("refused in several lines: %q", err)
		}
		return
	}
	out, err := message("x", typ, version, v)
	if err != nil {
		t.Fatalf("read as %+v, but that cannot be written: %v", v, err)
	}
	if w, err := decode[T](out, typ, version); err != nil || !cmp.Equal(v, w) {
		t.Errorf("read as %+v, then as %+v, %v", v, w, err)
	}
}

// What is heard as the end of a beat names a node and the sequence of a marker.
func FuzzMarkers(f *testing.F) {
	f.Add("p.beat.n1", "7", "DEL", "")
	f.Add("p.beat.n1", "7", "", "MaxAge")
	f.Add("p.beat.n1", "7", "", "")
	f.Add("p.beat.n.1", "-7", "PURGE", "")
	f.Add("p.info.n1", "", "DEL", "")
	f.Fuzz(func(t *testing.T, subject, sequence, operation, reason string) {
		msg := &nats.Msg{Subject: subject, Header: nats.Header{
			"KV-Operation": {operation}, "Nats-Marker-Reason": {reason}, "Nats-Sequence": {sequence},
		}}
		node, _, ok := parseMarker(msg, "p.beat.")
		switch {
		case !ok:
		case operation == "" && reason == "":
			t.Error("a beat is a marker")
		case "p.beat."+node != subject || name.Check("node", node) != nil:
			t.Errorf("%q is about node %q", subject, node)
		}
	})
}

// What is stored in the nodes bucket is refused, or reads the same after it was
// written again.
func FuzzValues(f *testing.F) {
	f.Add(`{"labels":{"zone":"a"},"kinds":["email.send"],"slots":3,"started":"2026-01-02T03:04:05Z","later":1}`)
	f.Add(`{"holder":"n1.x","token":"T","epoch":7}`)
	f.Add(`18446744073709551615`)
	f.Add(`-1`)
	f.Add(``)
	f.Fuzz(func(t *testing.T, value string) {
		restore[Info](t, value)
		restore[kv.Held](t, value)
		restore[uint64](t, value)
		_ = ownerNode(kv.Held{Holder: value})
	})
}

func restore[T any](t *testing.T, value string) {
	t.Helper()
	codec := kv.JSON[T]()
	v, err := codec.Decode(nil, []byte(value))
	if err != nil {
		return
	}
	header, data, err := codec.Encode(v)
	if err != nil {
		return // such as a year that no JSON can have
	}
	w, err := codec.Decode(header, data)
	_, written, encodeErr := codec.Encode(w)
	if err != nil || encodeErr != nil || string(data) != string(written) {
		t.Errorf("written as %s, then as %s: %v, %v", data, written, err, encodeErr)
	}
}
