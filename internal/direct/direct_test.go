package direct_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/direct"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
)

// filled returns a publisher to a server with a stream of 2,000 subjects, each
// with one message before its last.
func filled(t *testing.T) *publish.Publisher {
	t.Helper()
	pub, err := publish.New(natstest.Connect(t, natstest.Start(t, t.TempDir())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	js, err := pub.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, AllowDirect: true}); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"old", "new"} {
		for i := range 2000 {
			if _, err := js.PublishMsgAsync(&nats.Msg{Subject: fmt.Sprintf("s.%04d", i), Data: []byte(body), Header: nats.Header{"N": {fmt.Sprint(i)}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-js.PublishAsyncComplete()
	return pub
}

func TestAll(t *testing.T) {
	t.Parallel()
	pub := filled(t)
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("s.%04d", i))
	}
	for _, test := range []struct {
		name        string
		get         direct.Get
		first, last uint64
		count       int
		body        string
	}{
		{"multi", direct.Get{MultiLast: many}, 2001, 3000, 1000, "new"},
		{"multi in batches", direct.Get{MultiLast: many, Batch: 300}, 2001, 3000, 1000, "new"},
		{"multi with wildcard", direct.Get{MultiLast: []string{"s.0007", "*.0008", "s.none"}}, 2008, 2009, 2, "new"},
		{"next", direct.Get{Seq: 2001, NextBySubject: "s.*", Batch: 300}, 2001, 4000, 2000, "new"},
		{"next of one", direct.Get{Seq: 1, NextBySubject: "s.0001", Batch: 10}, 2, 2002, 2, ""},
		{"nothing", direct.Get{MultiLast: []string{"s.none"}}, 0, 0, 0, ""},
		{"nothing more", direct.Get{Seq: 4001, NextBySubject: "s.>", Batch: 10}, 0, 0, 0, ""},
	} {
		var got []publish.Message
		if err := test.get.All(t.Context(), pub, "S", func(m publish.Message) { got = append(got, m) }); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if len(got) != test.count {
			t.Errorf("%s: got %d messages, want %d", test.name, len(got), test.count)
			continue
		}
		for i, m := range got {
			number := (m.Sequence - 1) % 2000
			switch {
			case m.Subject != fmt.Sprintf("s.%04d", number), m.Header.Get("N") != fmt.Sprint(number), m.Time.IsZero(),
				test.body != "" && string(m.Data) != test.body, i > 0 && m.Sequence <= got[i-1].Sequence:
				t.Errorf("%s: message %d is %v", test.name, i, m)
			}
		}
		if test.count > 0 && (got[0].Sequence != test.first || got[test.count-1].Sequence != test.last) {
			t.Errorf("%s: got %d to %d, want %d to %d", test.name, got[0].Sequence, got[test.count-1].Sequence, test.first, test.last)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	pub := filled(t)
	fails := func(get direct.Get, stream string, want error) {
		t.Helper()
		if err := get.All(t.Context(), pub, stream, func(publish.Message) {}); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	everything := direct.Get{MultiLast: []string{"s.>"}}
	fails(everything, "S", direct.ErrTooMany)
	fails(everything, "NONE", jetstream.ErrNoStreamResponse)
	if err := (direct.Get{}).All(t.Context(), pub, "S", func(publish.Message) {}); err == nil || !strings.Contains(err.Error(), "status 408") {
		t.Errorf("an empty request: got %v, want status 408", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if err := everything.All(ctx, pub, "S", func(publish.Message) {}); !errors.Is(err, gone) {
		t.Errorf("got %v, want the cause of the context", err)
	}
	pub.Conn().Close()
	fails(everything, "S", nats.ErrConnectionClosed)
}
