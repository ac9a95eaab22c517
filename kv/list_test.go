package kv_test

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/kv"
	"pgregory.net/rapid"
)

// fill creates keys, pipelined, each with its number as value.
func fill(t testing.TB, b *kv.Bucket[int], n int, key func(int) string) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		b.CreateAsync(key(i), i, func(_ uint64, err error) {
			if err != nil {
				t.Error(err)
			}
			wg.Done()
		})
		if i%1000 == 999 {
			wg.Wait()
		}
	}
	wg.Wait()
}

func keys[T any](list []kv.Entry[T]) []string {
	var ks []string
	for _, e := range list {
		ks = append(ks, e.Key)
	}
	return ks
}

func TestLists(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b, ctx := open[int](t, natstest.Connect(t, srv)), t.Context()

	for _, filter := range []string{">", "mail.*"} {
		list, err := b.ListStale(ctx, filter)
		if err != nil || len(list) != 0 {
			t.Errorf("empty bucket: got %v, %v", list, err)
		}
	}
	const n = 2500 // more than two multi-gets
	fill(t, b, n, func(i int) string { return fmt.Sprintf("mail.%d", i) })
	fill(t, b, 3, func(i int) string { return fmt.Sprintf("page.%d", i) })
	is(t, "delete", b.Delete(ctx, "page.1", mustGet(t, b, "page.1").Revision), nil)

	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("mail.%d", i))
	}
	for _, tt := range []struct {
		filter string
		want   []string
	}{
		{"mail.*", all},
		{"page.*", []string{"page.0", "page.2"}},
		{"*.7", []string{"mail.7"}},
		{"mail.9", []string{"mail.9"}},
		{"none.*", nil},
	} {
		list, err := b.ListStale(ctx, tt.filter)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(tt.want, keys(list)); diff != "" {
			t.Errorf("list of %s (-want +got):\n%s", tt.filter, diff)
		}
	}
	list, err := b.GetManyStale(ctx, append(all, "page.1", "page.2", "missing"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(append(all, "page.2"), keys(list)); diff != "" {
		t.Errorf("get many (-want +got):\n%s", diff)
	}
	for i, e := range list[:n] {
		if e.Value != i || e.Revision == 0 || e.Stored.IsZero() {
			t.Fatalf("%s is %v", e.Key, e)
		}
	}
	if list, err := b.GetManyStale(ctx, nil); err != nil || list != nil {
		t.Errorf("get none: got %v, %v", list, err)
	}
	if _, err := b.GetManyStale(ctx, []string{"mail.*"}); err == nil {
		t.Error("get many took a wildcard")
	}
	_, err = kv.Open(publisher(t, natstest.Connect(t, srv)), "missing", kv.JSON[int]()).ListStale(ctx, ">")
	if err == nil {
		t.Error("the list of a missing bucket is empty")
	}
}

// Lists pass over what they cannot decode, and say so.
func TestUndecodable(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, false)
	pub := publisher(t, natstest.Connect(t, srv))
	words := kv.Open(pub, "test", kv.JSON[string]())
	var log bytes.Buffer
	b := kv.Open(pub, "test", kv.JSON[int](), kv.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	create(t, b, "a", 1)
	create(t, words, "b", "not a number")
	create(t, b, "c", 3)

	list, err := b.ListStale(t.Context(), ">")
	if err != nil || !slices.Equal(keys(list), []string{"a", "c"}) {
		t.Errorf("list: got %v, %v, want a and c", list, err)
	}
	var recent []string
	err = b.Recent(t.Context(), ">", func(e kv.Entry[int]) bool { recent = append(recent, e.Key); return true })
	if err != nil || !slices.Equal(recent, []string{"c", "a"}) {
		t.Errorf("recent: got %v, %v, want c and a", recent, err)
	}
	if n := strings.Count(log.String(), "$KV.test.b"); n != 2 {
		t.Errorf("the log names b %d times, want 2:\n%s", n, &log)
	}
}

// Recent gives what a model gives, in its order, whatever was written, changed
// and removed before, and wherever the caller stops.
func TestRecent(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b := open[int](t, natstest.Connect(t, srv))
	model := map[string]kv.Entry[int]{}
	rapid.Check(t, func(rt *rapid.T) {
		churn(t, b, model, churning{
			groups: rapid.IntRange(1, 4).Draw(rt, "groups"),
			writes: rapid.IntRange(0, 120).Draw(rt, "writes"),
			ends:   rapid.IntRange(0, 100).Draw(rt, "ends"),
			seed:   rapid.Uint64().Draw(rt, "seed"),
		})
		filter := rapid.SampledFrom([]string{">", "g0.*", "g1.*", "*.3"}).Draw(rt, "filter")
		stop := rapid.IntRange(1, 600).Draw(rt, "stop after")

		var want []kv.Entry[int]
		for _, e := range model {
			if filter == ">" || strings.HasPrefix(e.Key, strings.TrimSuffix(filter, "*")) || filter == "*.3" && strings.HasSuffix(e.Key, ".3") {
				want = append(want, e)
			}
		}
		slices.SortFunc(want, func(a, b kv.Entry[int]) int { return cmp.Compare(b.Revision, a.Revision) })
		want = want[:min(len(want), stop)]

		var got []kv.Entry[int]
		err := b.Recent(t.Context(), filter, func(e kv.Entry[int]) bool {
			got = append(got, kv.Entry[int]{Key: e.Key, Value: e.Value, Revision: e.Revision})
			return len(got) < stop
		})
		if err != nil {
			rt.Fatal(err)
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			rt.Errorf("recent %s (-want +got):\n%s", filter, diff)
		}
	})
}

// A key that changes while others are visited is visited all the same, once.
func TestRecentDuringChanges(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, true)
	b := open[int](t, natstest.Connect(t, srv))
	const keys = 2000
	for i := range keys {
		create(t, b, fmt.Sprint("k.", i), i)
	}
	visits := map[string]int{}
	err := b.Recent(t.Context(), "k.*", func(e kv.Entry[int]) bool {
		visits[e.Key]++
		if n := len(visits); n%100 == 0 && n < keys/2 { // one that is seen, and one that is not yet
			update(t, b, e.Key, -1, e.Revision)
			old := fmt.Sprint("k.", n/100)
			update(t, b, old, -1, mustGet(t, b, old).Revision)
		}
		return true
	})
	is(t, "recent", err, nil)
	if len(visits) != keys {
		t.Errorf("%d keys were visited, want %d", len(visits), keys)
	}
	for key, n := range visits {
		if n != 1 {
			t.Errorf("%s was visited %d times", key, n)
		}
	}
}

type churning struct {
	groups, writes, ends int
	seed                 uint64
}

// churn writes, changes, deletes and removes keys in b and in the model.
func churn(t *testing.T, b *kv.Bucket[int], model map[string]kv.Entry[int], c churning) {
	t.Helper()
	dice := rand.New(rand.NewPCG(c.seed, 0))
	for i := range c.writes {
		key := fmt.Sprintf("g%d.%d", dice.IntN(c.groups), dice.IntN(300))
		e, ok := model[key]
		if ok {
			e.Revision = update(t, b, key, i, e.Revision)
		} else {
			e.Revision = create(t, b, key, i)
		}
		e.Key, e.Value = key, i
		model[key] = e
	}
	for key, e := range model {
		if c.ends--; c.ends < 0 {
			break
		}
		end := b.Remove
		if dice.IntN(2) == 0 {
			end = b.Delete
		}
		is(t, "end", end(t.Context(), key, e.Revision), nil)
		delete(model, key)
	}
}

// The first page comes from the end, however long the stream is, and long gaps
// between sequences cost few requests.
func TestRecentSparse(t *testing.T) {
	t.Parallel()
	srv := natstest.Start(t, t.TempDir())
	makeBucket(t, srv, false)
	nc := natstest.Connect(t, srv)
	b, ctx := open[int](t, nc), t.Context()
	for i := range 3 {
		create(t, b, fmt.Sprintf("rare.%d", i), i)
		// One hot key makes a gap of as many sequences.
		rev := create(t, b, fmt.Sprintf("hot.%d", i), 0)
		var wg sync.WaitGroup
		wg.Add(1)
		var next func(rev uint64, err error)
		left := 4000
		next = func(rev uint64, err error) {
			if left--; err != nil || left == 0 {
				is(t, "update", err, nil)
				wg.Done()
				return
			}
			b.UpdateAsync(fmt.Sprintf("hot.%d", i), left, rev, next)
		}
		next(rev, nil)
		wg.Wait()
	}
	sent := nc.Stats().OutMsgs
	var got []string
	err := b.Recent(ctx, "rare.*", func(e kv.Entry[int]) bool { got = append(got, e.Key); return true })
	if want := []string{"rare.2", "rare.1", "rare.0"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if n := nc.Stats().OutMsgs - sent; n > 20 {
		t.Errorf("it took %d messages", n)
	}
}
