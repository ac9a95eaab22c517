package enginetest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// Write is something that a process wrote about jobs: a record, an item, a
// timer, a cursor. What nodes write about themselves, and acknowledgements, are
// not counted: when they come is up to the clock.
type Write struct {
	// Number counts the writes of a process, from 1.
	Number int
	// Asset is where it went: "jobs", "work", "timers", "config", "cursor" or
	// "dead".
	Asset string
	// Job is the ID of the job that it is about, if it is about one.
	Job string
	// State is what a record says of its job, such as "running".
	State string
	// Deletes is whether the write removes something.
	Deletes bool
	// Subject is where it was published.
	Subject string
	// Fault is what became of it.
	Fault Fault
}

// String describes the write in one line, such as "3 jobs email.ann running".
func (w Write) String() string {
	words := []string{fmt.Sprint(w.Number), w.Asset, w.Job, w.State}
	if w.Deletes {
		words = append(words, "delete")
	}
	if w.Fault != Pass {
		words = append(words, "("+w.Fault.String()+")")
	}
	return strings.Join(slices.DeleteFunc(words, func(s string) bool { return s == "" }), " ")
}

// deletion is where a message is removed from a stream, by its sequence.
const deletion = jetstream.DefaultAPIPrefix + "STREAM.MSG.DELETE."

// buckets are the buckets whose writes are counted.
var buckets = []string{streams.Jobs, streams.Config, streams.Cursor}

// counted returns the subjects on which a message is a [Write].
func counted(ns streams.Namespace) []string {
	subjects := []string{prefix(ns) + "work.>", prefix(ns) + "timer.>", prefix(ns) + "dead.>", deletion + "*"}
	for _, bucket := range buckets {
		subjects = append(subjects, keys(ns, bucket)+">")
	}
	return subjects
}

// prefix is what the subjects of a namespace begin with.
func prefix(ns streams.Namespace) string { return "mr." + string(ns) + "." }

// keys is what the subjects of a bucket begin with.
func keys(ns streams.Namespace, bucket string) string { return "$KV." + ns.Bucket(bucket) + "." }

// describe says what a message on its way to the server writes.
func describe(ns streams.Namespace, m natstest.Write) Write {
	w := Write{Subject: m.Subject, State: m.Header.Get("Mr-State"), Deletes: m.Header.Get("KV-Operation") != ""}
	for _, bucket := range buckets {
		if key, ok := strings.CutPrefix(m.Subject, keys(ns, bucket)); ok {
			w.Asset = bucket
			if bucket == streams.Jobs {
				w.Job = key
			}
			return w
		}
	}
	if stream, ok := strings.CutPrefix(m.Subject, deletion); ok {
		w.Asset, w.Deletes = strings.TrimPrefix(strings.TrimPrefix(stream, "KV_"), ns.Bucket("")), true
		return w
	}
	words := strings.Split(strings.TrimPrefix(m.Subject, prefix(ns)), ".")
	switch w.Asset = words[0]; {
	case w.Asset == "work" && len(words) == 4: // queue, class, local ID
		w.Job = words[1] + "." + words[3]
	case w.Asset == "timer" && len(words) == 5: // minute, purpose, queue, local ID
		w.Asset, w.Job = "timers", words[3]+"."+words[4]
	}
	return w
}
