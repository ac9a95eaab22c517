package streams_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// The shapes of the tests.
var (
	open0  = streams.Shape{AckWait: ackWait}
	limit2 = streams.Shape{AckWait: ackWait, Concurrency: 2}
)

// offerTo offers items of a class of the queue mail.
func (w *world) offerTo(class string, locals ...string) {
	w.Helper()
	for _, local := range locals {
		if err := w.work.Offer(w.Context(), streams.Item{Queue: "mail", Class: class, Local: local, Revision: 7}); err != nil {
			w.Fatal(err)
		}
	}
}

// shape brings the queue mail into a shape.
func (w *world) shape(s streams.Shape) {
	w.Helper()
	if err := w.work.Serve(w.Context(), "mail", s); err != nil {
		w.Fatal(err)
	}
}

// open makes the consumer of a class of the queue mail.
func (w *world) open(class string) {
	w.Helper()
	if err := w.work.Open(w.Context(), "mail", class, open0); err != nil {
		w.Fatal(err)
	}
}

// class returns a puller of a class of the queue mail, which the test closes.
func (w *world) class(class string) *streams.Puller {
	w.Helper()
	p := must(w.work.Puller("mail", class))(w)
	w.Cleanup(func() { _ = p.Close(w.Context()) })
	return p
}

// consumers returns the consumers of the queue mail, with their limits.
func (w *world) consumers() (list []string) {
	w.Helper()
	for _, info := range must(w.work.Consumers(w.Context(), "mail"))(w) {
		list = append(list, fmt.Sprint(info.Name, " ", info.Config.MaxAckPending))
	}
	return list
}

// Each class has its own consumer. What is said of a queue or of a job is said of
// all of its classes.
func TestClasses(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		for _, class := range []string{"", streams.High, streams.Low} {
			w.offerTo(class, "a"+class, "b"+class)
		}
		if d := cmp.Diff([]string{"high", "low"}, must(w.work.Used(t.Context(), "mail"))(t)); d != "" {
			t.Errorf("classes in use (-want +got):\n%s", d)
		}
		for _, class := range []string{"", streams.High, streams.Low} {
			w.open(class)
			got := w.pull(w.class(class), 2, time.Minute)
			if want := "a" + class + " b" + class; locals(got) != want || got[0].Class != class {
				t.Errorf("class %q: got %s of class %q, want %s", class, locals(got), got[0].Class, want)
			}
			if has := must(w.work.Offered(t.Context(), "", "mail", "a"+class))(t); !has {
				t.Errorf("a%s is not offered", class)
			}
			if err := w.work.Withdraw(t.Context(), "", "mail", "a"+class, 7); err != nil {
				t.Error(err)
			}
		}
		w.offerTo(streams.Low, "c", "d")
		time.Sleep(time.Second) // the consumers hear of what was stored and deleted after whoever did it
		if d := cmp.Diff(streams.Load{Waiting: 2, Taken: 3}, must(w.work.Load(t.Context(), "mail"))(t)); d != "" {
			t.Errorf("load (-want +got):\n%s", d)
		}
		if d := cmp.Diff(map[string]bool{"mail.b": true, "mail.bhigh": true, "mail.blow": true},
			must(w.work.Has(t.Context(), refs("mail.a", "mail.ahigh", "mail.b", "mail.bhigh", "mail.blow")))(t)); d != "" {
			t.Errorf("items (-want +got):\n%s", d)
		}
		if used := must(w.work.Used(t.Context(), "other"))(t); len(used) != 0 {
			t.Errorf("another queue uses %v", used)
		}
	})
}

// A class that this build does not know is the normal one, whatever it is.
func TestUnknownClass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	w.offerTo("urgent.>", "a")
	w.offerTo(streams.Class, "b")
	if got := w.pull(w.puller(), 2, time.Minute); locals(got) != "a b" || got[0].Class != "" || got[1].Class != "" {
		t.Errorf("got %s, want a and b of no class", locals(got))
	}
}

// The first item of a class is heard, and no other.
func TestHear(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	heard := make(chan string, 10)
	for _, class := range []string{streams.High, streams.Low} {
		stop := must(w.work.Hear("mail", class, func() { heard <- class }))(t)
		defer stop()
	}
	w.offerTo("", "a")
	w.offerTo(streams.Low, "b", "c")
	w.offerTo(streams.High, "d", "e")
	if first, second := <-heard, <-heard; first+second != "lowhigh" && first+second != "highlow" {
		t.Errorf("heard %s and %s, want each class once", first, second)
	}
	if err := w.nc.Flush(); err != nil || len(heard) > 0 {
		t.Errorf("heard %d more, %v", len(heard), err)
	}
}

// A limit puts all classes into one consumer, oldest first, and holds over all
// workers. Without it each class has its own again.
func TestLimit(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
		w := newWorld(t, connect(t, srv))
		w.open(streams.High)
		w.offerTo("", "a")
		w.offerTo(streams.High, "b")
		w.offerTo(streams.Low, "c")
		held := append(w.pull(w.class(""), 1, time.Second), w.pull(w.class(streams.High), 1, time.Second)...)
		w.shape(limit2)
		if d := cmp.Diff([]string{"mail 2"}, w.consumers()); d != "" {
			t.Errorf("consumers with a limit (-want +got):\n%s", d)
		}
		again := w.pull(w.puller(), 3, time.Second)
		if locals(again) != "a b" || again[1].Class != streams.High {
			t.Errorf("got %s, want a and b once more", locals(again))
		}
		if err := held[0].Ack(); err != nil { // in place of its second delivery
			t.Fatal(err)
		}
		if got := locals(w.pull(w.puller(), 3, time.Second)); got != "c" {
			t.Errorf("got %s, want c", got)
		}
		w.shape(streams.Shape{AckWait: ackWait, Concurrency: 1})
		if err := again[1].Ack(); err != nil {
			t.Fatal(err)
		}
		w.offerTo("", "d")
		if got := locals(w.pull(w.puller(), 3, time.Second)); got != "" {
			t.Errorf("got %s beyond the limit", got)
		}
		w.shape(open0)
		w.open(streams.Low)
		if d := cmp.Diff([]string{"mail -1", "mail=low -1"}, w.consumers()); d != "" {
			t.Errorf("consumers without a limit (-want +got):\n%s", d)
		}
		if got := locals(w.pull(w.puller(), 3, time.Second)) + locals(w.pull(w.class(streams.Low), 3, time.Second)); got != "dc" {
			t.Errorf("got %s, want d and, of the low class, c", got)
		}
	})
}

// Serve finishes what it began and died of, and what somebody else undoes
// meanwhile by an old definition.
func TestServeAfterCrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	js := open(t, w.nc)
	for _, gone := range [][]string{nil, {"mail=high"}, {"mail=high", "mail=low"}, {"mail=high", "mail=low", "mail"}, {"mail"}} {
		w.shape(open0)
		w.open(streams.High)
		w.open(streams.Low)
		for _, name := range gone {
			if err := js.DeleteConsumer(t.Context(), ns.WorkStream(), name); err != nil {
				t.Fatal(err)
			}
		}
		w.shape(limit2)
		if d := cmp.Diff([]string{"mail 2"}, w.consumers()); d != "" {
			t.Errorf("without %v (-want +got):\n%s", gone, d)
		}
		if err := w.work.Open(t.Context(), "mail", streams.High, open0); err == nil {
			t.Error("a class of a queue with a limit got a consumer")
		}
		w.open("") // changes nothing
		if d := cmp.Diff([]string{"mail 2"}, w.consumers()); d != "" {
			t.Errorf("opened by an old definition (-want +got):\n%s", d)
		}
	}
}

// However many serve a queue at once in different shapes, and open classes of it
// by old definitions, the last one leaves its shape.
func TestServeAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	done := make(chan error)
	for i := range 4 {
		go func() {
			var last error
			for range 10 {
				for _, class := range []string{"", streams.High, streams.Low} {
					_ = w.work.Open(t.Context(), "mail", class, open0) // may be refused
				}
				if err := w.work.Serve(t.Context(), "mail", []streams.Shape{open0, limit2}[i%2]); err != nil {
					last = err
				}
			}
			done <- last
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			oneLine(t, err, "streams: serve queue mail")
		}
	}
	w.shape(limit2)
	if d := cmp.Diff([]string{"mail 2"}, w.consumers()); d != "" {
		t.Errorf("consumers (-want +got):\n%s", d)
	}
}

// What cannot be done is an error of one line.
func TestShapeWithoutAssets(t *testing.T) {
	t.Parallel()
	work := must(streams.NewWork(ns, publisher(t, connect(t, natstest.Start(t, t.TempDir())))))(t)
	_, err := work.Used(t.Context(), "mail")
	_, err2 := work.Consumers(t.Context(), "mail")
	for _, err := range []error{err, err2, work.Serve(t.Context(), "mail", limit2), work.Open(t.Context(), "mail", streams.Low, limit2)} {
		oneLine(t, err, "streams: ", "queue mail")
	}
	if errors.Is(err, streams.ErrNoConsumer) {
		t.Errorf("got %v, but the stream is missing", err)
	}
}
