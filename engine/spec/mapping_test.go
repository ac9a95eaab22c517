package spec_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/spec"
)

func compile(t testing.TB, trigger spec.Trigger) *spec.Mapping {
	t.Helper()
	trigger.Name, trigger.Subject, trigger.Job = "t", "orders.>", "order.fulfil"
	m, err := spec.Compile(trigger)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The input is the event's own bytes unless an expression says otherwise.
func TestInputIsNotCopied(t *testing.T) {
	t.Parallel()
	data := []byte(`{ "id": 1 }`)
	for _, input := range []string{"", "event.data", " event.data\n"} {
		out, err := compile(t, spec.Trigger{Input: input, ID: "event.data.id"}).Map(spec.Event{Data: data})
		if err != nil || out.ID != "1" || len(out.Input) == 0 || &out.Input[0] != &data[0] {
			t.Errorf("input %q: got %+v, %v, want the event's data", input, out, err)
		}
	}
}

// No expression takes hold of an engine, whatever the event is. Without their
// limit most of these would not end within the life of the test.
func TestMapLimits(t *testing.T) {
	t.Parallel()
	list := "[" + strings.TrimSuffix(strings.Repeat(`{"a":"b"},`, 20_000), ",") + "]"
	event := spec.Event{Data: fmt.Appendf(nil, `{"list": %s, "text": %q}`, list, strings.Repeat("a", 100_000))}
	const tooMuch = "this takes too long or too much memory: make the expression simpler, or the event smaller"
	double := "[[1,1]]" + strings.Repeat(".map(x,[x,x])", 40)
	for _, expression := range []string{
		"event.data.list.all(x, event.data.list.all(y, event.data.list.all(z, true)))",
		"event.data.list.all(x, {'a': event.data} == {'a': event.data})",
		"event.data.list.all(x, event.data.list == event.data.list)",
		"event.data.list.all(x, !(event.data.text in event.data.list))",
		"event.data.list.all(x, event.data.text + event.data.text != '')",
		"event.data.list.all(x, size(event.data.list + event.data.list) > 1)",
		"event.data.list.all(x, !event.data.text.matches('(a*)*b'))",
		"['aaaaaaaaaaaaaaaaaaaaaaa']" + strings.Repeat(".map(x,x+x)", 40) + " == []",
		double + " == " + double,
		double + " == []",
	} {
		_, err := compile(t, spec.Trigger{When: expression}).Map(event)
		if err == nil || !strings.HasSuffix(err.Error(), tooMuch) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.80s: got %v", expression, err)
		}
	}
	m := compile(t, spec.Trigger{Input: "[event.data.text]" + strings.Repeat(".map(x,[x,x])", 8)})
	if _, err := m.Map(event); err == nil || !strings.HasSuffix(err.Error(), "this is longer than 16 MiB as JSON: make it smaller") {
		t.Errorf("a long input: got %v", err)
	}
}

// What real events need stays well below the limits: an event of a megabyte.
func TestMapLargeEvent(t *testing.T) {
	t.Parallel()
	lines := strings.TrimSuffix(strings.Repeat(`{"sku":"abcdefgh","count":3,"price":{"amount":1999,"currency":"EUR"},"tags":["a","b"]},`, 12_000), ",")
	m := compile(t, spec.Trigger{
		When:  "event.data.lines.exists(l, l.count > 3) || event.data.lines.size() > 10",
		Input: "{'skus': event.data.lines.map(l, l.sku), 'order': event.data}",
	})
	out, err := m.Map(spec.Event{Data: fmt.Appendf(nil, `{"lines": [%s]}`, lines)})
	if err != nil || out.Skip || !json.Valid(out.Input) {
		t.Errorf("got %d bytes, skip %v, %v", len(out.Input), out.Skip, err)
	}
}

// One mapping serves many goroutines.
func TestMapConcurrently(t *testing.T) {
	t.Parallel()
	m := compile(t, spec.Trigger{When: "event.data.n % 2 == 0", ID: "event.data.n", Input: "{'n': event.data.n, 'k': event.headers.k}"})
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := n * 100; i < n*100+100; i++ {
				out, err := m.Map(spec.Event{
					Data:   fmt.Appendf(nil, `{"n": %d}`, i),
					Header: map[string][]string{"k": {fmt.Sprint(i)}},
				})
				want := spec.Mapped{Skip: true}
				if i%2 == 0 {
					want = spec.Mapped{ID: fmt.Sprint(i), Input: fmt.Appendf(nil, `{"k":"%d","n":%d}`, i, i)}
				}
				if err != nil || out.Skip != want.Skip || out.ID != want.ID || string(out.Input) != string(want.Input) {
					t.Errorf("event %d: got %+v, %v", i, out, err)
				}
			}
		})
	}
	wg.Wait()
}

// Whatever the expressions and the event are, Map gives JSON or one line.
func FuzzMap(f *testing.F) {
	f.Add("event.data.total > 0", "event.data.id", "{'a': event.data.list}", "k", "v", []byte(`{"id": 1, "total": 2.5, "list": [null]}`))
	f.Add("", "event.headers[event.subject]", "event.data", "orders", "\n", []byte("\xff"))
	f.Add("has(event.data.a)", "string(event.time)", "[event.data, event.sequence, b'\xff', 1u, duration('1s')]", "", "", []byte(`"a"`))
	f.Add("event.data.all(x, x.matches('a+'))", "1.0 / 3.0", "event.data.map(x, {x: x})", "", "", []byte(`["a", 1e999]`))
	f.Fuzz(func(t *testing.T, when, id, input, header, value string, data []byte) {
		m, err := spec.Compile(spec.Trigger{Name: "t", Subject: "a", Job: "a.x", When: when, ID: id, Input: input})
		if err != nil {
			return
		}
		out, err := m.Map(spec.Event{
			Subject: "orders", Data: data, Time: time.Unix(1, 0), Header: map[string][]string{header: {value}},
		})
		switch {
		case err != nil && strings.ContainsAny(err.Error(), "\n\r"):
			t.Errorf("the error is not one line: %q", err)
		case err != nil || out.Skip:
		case !json.Valid(out.Input):
			t.Errorf("the input is no JSON: %q", out.Input)
		case (id == "") != (out.ID == ""):
			t.Errorf("ID %q of expression %q", out.ID, id)
		}
	})
}

// BenchmarkMap is what an event costs.
func BenchmarkMap(b *testing.B) {
	event := spec.Event{
		Subject: "orders.created",
		Data:    []byte(`{"id":"o-4711","total":129.5,"currency":"EUR","customer":{"id":42,"name":"Ada"},"lines":[{"sku":"a","count":1},{"sku":"b","count":2}]}`),
		Time:    time.Unix(1_700_000_000, 0),
	}
	for name, trigger := range map[string]spec.Trigger{
		"default": {},
		"id":      {ID: "event.data.id"},
		"when+id": {When: "event.data.total > 0", ID: "event.data.id"},
		"all":     {When: "event.data.total > 0", ID: "event.data.id", Input: "{'id': event.data.id, 'lines': event.data.lines}"},
	} {
		m := compile(b, trigger)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(event.Data)))
			for b.Loop() {
				if _, err := m.Map(event); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkCompile is what a trigger costs when it is read.
func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		compile(b, spec.Trigger{When: "event.data.total > 0", ID: "event.data.id"})
	}
}
