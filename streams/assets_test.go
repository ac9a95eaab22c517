package streams_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/streams"
)

// The file shows every asset as the server has it.
func TestAssets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, connect(t, natstest.Start(t, t.TempDir())))
	if _, err := streams.SetCapture(t.Context(), ns, publisher(t, w.nc), []string{"orders.*", "payments.>"}); err != nil {
		t.Fatal(err)
	}
	datadriven.RunTest(t, "testdata/assets", func(t *testing.T, d *datadriven.TestData) string {
		var b strings.Builder
		switch d.Cmd {
		case "streams":
			all := configs(t, open(t, w.nc))
			for _, name := range slices.Sorted(maps.Keys(all)) {
				fmt.Fprintf(&b, "%s\n%s\n", name, describe(all[name]))
			}
		case "shared":
			seen := map[string]bool{}
			for _, config := range configs(t, open(t, w.nc)) {
				seen[shared(config)] = true
			}
			fmt.Fprintln(&b, strings.Join(slices.Sorted(maps.Keys(seen)), "\n"))
		case "consumers":
			c := w.info().Config
			fmt.Fprintf(&b, "%s: filter %s, ack %s within %v, deliver %d, ack pending %d, waiting %d, %s\n",
				c.Durable, c.FilterSubject, c.AckPolicy, c.AckWait, c.MaxDeliver, c.MaxAckPending, c.MaxWaiting, c.Description)
		default:
			t.Fatalf("unknown command %q", d.Cmd)
		}
		return b.String()
	})
}

// describe returns what makes a stream differ from others.
func describe(c jetstream.StreamConfig) string {
	lines := []string{"  subjects " + strings.Join(c.Subjects, " ")}
	keeps := []string{c.Retention.String()}
	limit := func(n int64, what string) {
		if n > 0 {
			keeps = append(keeps, fmt.Sprint(n, " ", what))
		}
	}
	limit(c.MaxMsgs, "messages")
	limit(c.MaxMsgsPerSubject, "a subject")
	limit(c.MaxBytes, "bytes")
	limit(int64(c.MaxMsgSize), "bytes a message")
	limit(int64(c.MaxAge/time.Hour), "hours")
	if c.Discard == jetstream.DiscardNew {
		keeps = append(keeps, "discard new")
	}
	lines = append(lines, "  keeps    "+strings.Join(keeps, ", "))
	var has []string
	for _, feature := range []struct {
		on   bool
		name string
	}{
		{c.AllowDirect, "direct gets"},
		{c.AllowRollup, "rollups"},
		{c.AllowMsgTTL, "TTLs"},
		{c.SubjectDeleteMarkerTTL > 0, fmt.Sprint("markers for ", c.SubjectDeleteMarkerTTL)},
		{c.NoAck, "no acks"},
		{c.DenyDelete, "no deletes"},
		{c.DenyPurge, "no purges"},
		{c.AllowAtomicPublish, "batches"},
		{c.AllowMsgSchedules, "schedules"},
		{c.Compression != jetstream.NoCompression, "compression"},
	} {
		if feature.on {
			has = append(has, feature.name)
		}
	}
	lines = append(lines, "  has      "+strings.Join(has, ", "))
	if c.RePublish != nil {
		lines = append(lines, fmt.Sprintf("  repeats  %s as %s", c.RePublish.Source, c.RePublish.Destination))
	}
	return strings.Join(lines, "\n")
}

// shared returns what no two streams differ in.
func shared(c jetstream.StreamConfig) string {
	return fmt.Sprintf("%s, %s storage, %d replica, %d consumers, duplicates for %v, assets %s",
		c.Description, c.Storage, c.Replicas, c.MaxConsumers, c.Duplicates, c.Metadata["millrace.version"])
}

// Subjects and names of one namespace never meet those of another.
func TestNames(t *testing.T) {
	t.Parallel()
	const other streams.Namespace = "prod-eu_1"
	created := time.Unix(1700000000, 0)
	for _, test := range []struct{ got, want string }{
		{other.Bucket(streams.Jobs), "mr_prod-eu_1_jobs"},
		{other.WorkStream(), "mr_prod-eu_1_work"},
		{other.DeadStream(), "mr_prod-eu_1_dead"},
		{other.CaptureStream(), "mr_prod-eu_1_capture"},
		{other.WorkSubject("mail", streams.Class, "a=1"), "mr.prod-eu_1.work.mail.normal.a=1"},
		{other.TimerStream(), "mr_prod-eu_1_timers"},
		{other.TimerSubject(created, streams.PurposeDue, "mail", "a=1"), "mr.prod-eu_1.timer.28333333.due.mail.a=1"},
		{other.TimerMinute(28333333), "mr.prod-eu_1.timer.28333333.>"},
		{other.LeaseFeed(), "mr.prod-eu_1.lease."},
		{other.EndedSubject("mail.a"), "mr.prod-eu_1.ended.mail.a"},
		{other.NodeFeed(), "mr.prod-eu_1.node."},
		{other.CtlSubject("n1"), "mr.prod-eu_1.ctl.n1"},
		{other.DeadSubject("orders", created, 7), "mr.prod-eu_1.dead.orders.1700000000-7"},
		{other.LogStream(), "mr_prod-eu_1_logs"},
		{other.LogSubject("mail.a"), "mr.prod-eu_1.log.mail.a"},
		{other.DeadFilter("*"), "mr.prod-eu_1.dead.*.*"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
