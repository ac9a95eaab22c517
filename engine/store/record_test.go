package store_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/store"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// The headers of a record tell what scans want to know, and a record expires
// once its job has ended.
func TestRecordHeaders(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		header := func() nats.Header {
			t.Helper()
			stream := must(w.js.Stream(t.Context(), "KV_"+ns.Bucket(streams.Jobs)))(t)
			return must(stream.GetLastMsgForSubject(t.Context(), "$KV.mr_default_jobs.q.1"))(t).Header
		}
		want := func(pairs ...string) {
			t.Helper()
			h, got := header(), []string{}
			for _, key := range []string{"Mr-Type", "Mr-State", "Mr-Kind", "Mr-Node", "Mr-Cancel", "traceparent", "Nats-TTL"} {
				if v := h.Get(key); v != "" {
					got = append(got, key+"="+v)
				}
			}
			if d := cmp.Diff(pairs, got); d != "" {
				t.Errorf("headers (-want +got):\n%s", d)
			}
		}
		j := job("1")
		j.Trace = map[string]string{"traceparent": "00-1-2-01"}
		p.submit(j)
		want("Mr-Type=job/1", "Mr-State=pending", "Mr-Kind=q.k", "traceparent=00-1-2-01")
		entry, d := p.start("t1")
		want("Mr-Type=job/1", "Mr-State=running", "Mr-Kind=q.k", "Mr-Node=a", "traceparent=00-1-2-01")
		w.change("q.1", machine.Stopped{Cause: "asked", At: time.Now()})
		want("Mr-Type=job/1", "Mr-State=running", "Mr-Kind=q.k", "Mr-Node=a", "Mr-Cancel=1", "traceparent=00-1-2-01")
		p.finish(entry, "t1", done("t1"), d)
		want("Mr-Type=job/1", "Mr-State=succeeded", "Mr-Kind=q.k", "traceparent=00-1-2-01", "Nats-TTL=24h0m0s")
		w.remove("q.1")

		p.submit(job("1"))
		must(p.Cancel(t.Context(), "q.1", "asked"))(t)
		want("Mr-Type=job/1", "Mr-State=cancelled", "Mr-Kind=q.k", "Nats-TTL=336h0m0s")
	})
}

// Recent and Watch tell of one queue or of all.
func TestRecentAndWatch(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		p := w.process("a")
		watched := make(chan string, 16)
		stop := w.loop(func(ctx context.Context) error {
			return p.Watch(ctx, "q", func(ev kv.Event[machine.Job]) {
				if ev.Kind == kv.Put {
					watched <- ev.Entry.Key
				}
			})
		})
		synctest.Wait()
		for _, id := range []string{"q.1", "other.1", "q.2"} {
			j := job("1")
			j.ID = id
			p.submit(j)
		}
		synctest.Wait()
		stop()
		close(watched)
		var got []string
		for id := range watched {
			got = append(got, id)
		}
		if !slices.Equal(got, []string{"q.1", "q.2"}) {
			t.Errorf("watched %v", got)
		}
		for queue, want := range map[string]string{"": "q.2 other.1 q.1", "q": "q.2 q.1", "none": ""} {
			var got []string
			err := p.Recent(t.Context(), queue, func(e store.Entry) bool {
				got = append(got, e.Key)
				return true
			})
			if err != nil || strings.Join(got, " ") != want {
				t.Errorf("queue %q has %v, %v, want %s", queue, got, err, want)
			}
		}
	})
}

// Whatever lies in a bucket is a job that can be written again, or unreadable.
func FuzzDecode(f *testing.F) {
	h, body, err := store.Codec().Encode(job("1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h.Get("Mr-Type"), body)
	f.Add("job/2", body)
	f.Add("", []byte(`{}`))
	f.Add("job/1", []byte(`{"id":"q.1","state":"running","lease":{"token":"t"},"attempts":[{}]}`))
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		j, err := store.Codec().Decode(nats.Header{"Mr-Type": {typ}}, body)
		if err != nil {
			if !errors.Is(err, store.ErrUnreadable) {
				t.Errorf("got %v, want unreadable", err)
			}
			return
		}
		h, again, err := store.Codec().Encode(j)
		if err != nil {
			t.Fatal(err)
		}
		back, err := store.Codec().Decode(h, again)
		if d := cmp.Diff(j, back, cmpopts.EquateEmpty()); err != nil || d != "" {
			t.Errorf("comes back with %v (-want +got):\n%s", err, d)
		}
	})
}
