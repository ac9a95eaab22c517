package streams_test

import (
	"testing"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// The log of a job goes alone, and going twice is success.
func TestEraseLog(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	ensure(t, nc, streams.Options{})
	js, pub := open(t, nc), publisher(t, nc)
	for _, id := range []string{"mail.a", "mail.a", "mail.b", "mail.a"} {
		must(js.Publish(t.Context(), ns.LogSubject(id), []byte("line")))(t)
	}
	last := func(id string) uint64 {
		t.Helper()
		return must(streams.LastLine(t.Context(), pub, ns, id))(t)
	}
	if a, b, c := last("mail.a"), last("mail.b"), last("mail.c"); a != 4 || b != 3 || c != 0 {
		t.Errorf("the last lines are %d, %d, %d, want 4, 3, 0", a, b, c)
	}
	for range 2 {
		if err := streams.EraseLog(t.Context(), pub, ns, "mail.a"); err != nil {
			t.Error(err)
		}
	}
	if a, b := last("mail.a"), last("mail.b"); a != 0 || b != 3 {
		t.Errorf("the last lines are %d and %d, want 0 and 3", a, b)
	}
	if err := js.DeleteStream(t.Context(), ns.LogStream()); err != nil {
		t.Fatal(err)
	}
	if err := streams.EraseLog(t.Context(), pub, ns, "mail.b"); err != nil {
		t.Errorf("without the stream: %v", err)
	}
}

// A job keeps its last lines, whatever others say.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	nc := natstest.Connect(t, natstest.Start(t, t.TempDir()))
	ensure(t, nc, streams.Options{})
	js := open(t, nc)
	must(js.Publish(t.Context(), ns.LogSubject("mail.b"), []byte("line")))(t)
	for range streams.LogLines + 10 {
		must(js.PublishAsync(ns.LogSubject("mail.a"), []byte("line")))(t)
	}
	<-js.PublishAsyncComplete()
	if s := state(t, js, ns.LogStream()); s.Msgs != streams.LogLines+1 || s.FirstSeq != 1 {
		t.Errorf("%d messages from %d on, want %d from 1 on", s.Msgs, s.FirstSeq, streams.LogLines+1)
	}
}
