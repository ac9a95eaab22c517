package fault_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/machine"
)

// declined is an error with data, as a pointer.
type declined struct {
	Card   string `json:"card"`
	Reason string `json:"reason"`
}

func (d *declined) Error() string { return "card " + d.Card + " was declined: " + d.Reason }

// busy is one as a value, with a code of its own.
type busy struct{ Queue int }

func (b busy) Error() string { return fmt.Sprintf("queue %d is busy", b.Queue) }
func (b busy) Code() string  { return "busy" }

// unruly panics wherever it can.
type unruly struct{ in string }

func (u unruly) Error() string {
	if u.in == "error" {
		panic("no words")
	}
	return "unruly"
}

func (u unruly) MarshalJSON() ([]byte, error) {
	if u.in == "marshal" {
		panic("no JSON")
	}
	return []byte(`{}`), nil
}

func (u unruly) UnmarshalJSON([]byte) error { panic("no value") }

func (u unruly) Unwrap() error {
	if u.in == "unwrap" {
		panic("no chain")
	}
	return nil
}

var errSoldOut = errors.New("sold out")

func init() {
	fault.Register[*declined]("test.declined")
	fault.Register[busy]("test.busy")
	fault.Register[unruly]("test.unruly")
	fault.RegisterValue("test.sold-out", errSoldOut)
}

// travel is what arrives of an error after it was stored as JSON.
func travel(t rapid.TB, err error) (machine.Error, error) {
	t.Helper()
	sent := fault.Encode(err)
	data, failed := json.Marshal(sent)
	if failed != nil {
		t.Fatal(failed)
	}
	var stored machine.Error
	if failed := json.Unmarshal(data, &stored); failed != nil {
		t.Fatal(failed)
	}
	return stored, fault.Decode(stored)
}

// What is registered arrives as itself, under whatever it was wrapped in.
func TestRegistered(t *testing.T) {
	t.Parallel()
	card := &declined{"4711", "no money"}
	for _, c := range []struct {
		err  error
		code string
	}{
		{card, "test.declined"},
		{fmt.Errorf("pay: %w", card), "test.declined"},
		{errors.Join(io.EOF, fmt.Errorf("pay: %w", card)), "test.declined"},
		{fmt.Errorf("%w: %w", busy{7}, card), "busy"},
		{&fault.Panic{Value: card, Stack: "here"}, "panic"},
	} {
		stored, got := travel(t, c.err)
		var back *declined
		if !errors.As(got, &back) || *back != *card {
			t.Errorf("%v: the card arrives as %+v, want %+v", c.err, back, card)
		}
		if got.Error() != c.err.Error() || stored.Code != c.code {
			t.Errorf("got %q with code %q, want %q with %q", got, stored.Code, c.err, c.code)
		}
		if errors.Is(got, io.EOF) || errors.Is(got, errSoldOut) {
			t.Errorf("%v: found an error that is not registered, or not there", c.err)
		}
	}
	_, got := travel(t, fmt.Errorf("order: %w", errSoldOut))
	if !errors.Is(got, errSoldOut) {
		t.Errorf("%v is not the value that was sent", got)
	}
	if value := (busy{}); errors.As(got, &value) {
		t.Errorf("found %+v, which was not sent", value)
	}
}

// What a record keeps of an error, in full.
func TestEncode(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("buy: %w", errors.Join(
		fmt.Errorf("%w", fmt.Errorf("pay: %w", &declined{"1", "stolen"})), // says nothing of its own
		errSoldOut,
	))
	want := machine.Error{
		Message: "buy: pay: card 1 was declined: stolen\nsold out", Code: "test.declined",
		Causes: []machine.Cause{
			{Message: "pay: card 1 was declined: stolen\nsold out", Depth: 1},
			{Message: "pay: card 1 was declined: stolen", Depth: 2},
			{Message: "card 1 was declined: stolen", Depth: 3, Type: "test.declined", Data: json.RawMessage(`{"card":"1","reason":"stolen"}`)},
			{Message: "sold out", Depth: 2, Type: "test.sold-out"},
		},
	}
	if diff := cmp.Diff(want, fault.Encode(err)); diff != "" {
		t.Error(diff)
	}
	plain := machine.Error{Message: "boom"}
	if diff := cmp.Diff(plain, fault.Encode(errors.New("boom"))); diff != "" {
		t.Error(diff)
	}
}

// A name that only the sender and the receiver know passes through processes
// between them.
func TestRelay(t *testing.T) {
	t.Parallel()
	sent := machine.Error{Message: "m", Code: "c", Causes: []machine.Cause{
		{Type: "foreign", Data: json.RawMessage(`{"a":1}`)},
		{Message: "below", Depth: 1, Type: "foreign.too"},
		{Message: "beside", Depth: 1, Type: "test.busy", Data: json.RawMessage(`{"Queue":3}`)},
	}}
	got := fault.Encode(fault.Decode(sent))
	if diff := cmp.Diff(sent, got); diff != "" {
		t.Error(diff)
	}
	got = fault.Encode(fmt.Errorf("over: %w", fault.Decode(sent)))
	if got.Code != "c" || len(got.Causes) != 3 || got.Causes[0].Type != "foreign" || got.Causes[0].Message != "m" {
		t.Errorf("wrapped it is %+v", got)
	}
}

// Whatever methods of errors do, something arrives.
func TestUnruly(t *testing.T) {
	t.Parallel()
	var nothing *declined
	for _, c := range []struct {
		err           error
		message, code string
	}{
		{unruly{"error"}, "panic: no words", fault.CodePanic},
		{unruly{"marshal"}, "unruly", "test.unruly"},
		{unruly{"unwrap"}, "unruly", "test.unruly"},
		{unruly{""}, "unruly", "test.unruly"},
		{fmt.Errorf("a: %w", unruly{"marshal"}), "a: unruly", "test.unruly"},
		{nothing, "panic: runtime error: invalid memory address or nil pointer dereference", fault.CodePanic},
	} {
		stored, got := travel(t, c.err)
		if got.Error() != c.message || stored.Code != c.code {
			t.Errorf("got %q with code %q, want %q with %q", got, stored.Code, c.message, c.code)
		}
		var back unruly
		if errors.As(got, &back) {
			t.Errorf("%q: its value arrives, although it cannot be read", c.message)
		}
	}
}

type loop struct{}

func (l loop) Error() string { return "again" }
func (l loop) Unwrap() error { return l }

// A record is bounded, however large the error.
func TestBounds(t *testing.T) {
	t.Parallel()
	long := errors.New(strings.Repeat("é", 10_000))
	deep := error(&declined{strings.Repeat("1", 3000), ""})
	for i := range 100 {
		deep = fmt.Errorf("%d: %w", i, deep)
	}
	var wide []error
	for i := range 100 {
		wide = append(wide, fmt.Errorf("%d: %w", i, long))
	}
	for _, err := range []error{
		long, deep, errors.Join(wide...),
		loop{},
		&declined{strings.Repeat("1", 5000), ""},
		&fault.Panic{Value: long, Stack: strings.Repeat("s", 10_000)},
	} {
		stored, got := travel(t, err)
		data, _ := json.Marshal(stored)
		if len(data) > 16<<10 || len(stored.Message) > 2<<10 || len(stored.Causes) > 8 {
			t.Errorf("%.20q takes %d bytes, %d causes", err, len(data), len(stored.Causes))
		}
		if !strings.HasPrefix(err.Error(), strings.TrimSuffix(got.Error(), "…")) {
			t.Errorf("%.20q arrives as %.20q", err, got)
		}
	}
}

// An error that wraps itself, or too many others, is its text; all others are
// themselves.
func TestFinite(t *testing.T) {
	t.Parallel()
	var wide []error
	for range 5000 {
		wide = append(wide, errSoldOut)
	}
	deep := errSoldOut
	for range 100 {
		deep = fmt.Errorf("deep: %w", deep)
	}
	bush := errSoldOut // 2^40 ways lead to it
	for range 40 {
		bush = twice{bush}
	}
	for name, c := range map[string]struct {
		err    error
		finite bool
	}{
		"none": {nil, true}, "plain": {errSoldOut, true}, "wide": {errors.Join(wide...), true}, "deep": {deep, true},
		"unruly": {unruly{"unwrap"}, true}, "loop": {loop{}, false}, "in a loop": {fmt.Errorf("in: %w", loop{}), false}, "bush": {bush, false},
	} {
		got := fault.Finite(c.err)
		same := reflect.DeepEqual(got, c.err)
		if same != c.finite {
			t.Errorf("%s: is itself: %v, want %v", name, same, c.finite)
		}
		if !c.finite && (got.Error() != c.err.Error() || errors.Is(got, io.EOF)) { // it comes back
			t.Errorf("%s: got %q, want %q", name, got, c.err)
		}
	}
}

// twice wraps an error in two ways.
type twice struct{ err error }

func (twice) Error() string     { return "twice" }
func (w twice) Unwrap() []error { return []error{w.err, w.err} }

func TestRegisterTwice(t *testing.T) {
	t.Parallel()
	fault.Register[*declined]("test.declined") // the same again
	for name, register := range map[string]func(){
		"another type":   func() { fault.Register[*json.SyntaxError]("test.declined") },
		"another value":  func() { fault.RegisterValue("test.sold-out", io.EOF) },
		"no name":        func() { fault.Register[*json.SyntaxError]("") },
		"a bad name":     func() { fault.Register[*json.SyntaxError]("a b") },
		"an interface":   func() { fault.Register[error]("test.any") },
		"not comparable": func() { fault.RegisterValue("test.list", list{}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("was accepted")
				}
			}()
			register()
		})
	}
}

type list []string

func (l list) Error() string { return strings.Join(l, ", ") }

// someError makes an error of what there is, and says what is in it.
func someError(t *rapid.T, depth int) error {
	text := rapid.SampledFrom([]string{"", "a", "b: c", "ü", "\x00<&>"})
	kinds := []string{"plain", "declined", "busy", "value", "list", "cancelled"}
	if depth > 0 {
		kinds = append(kinds, "wrap", "wrap", "silent", "join", "both")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case "declined":
		return &declined{text.Draw(t, "card"), text.Draw(t, "reason")}
	case "busy":
		return busy{rapid.Int().Draw(t, "queue")}
	case "value":
		return errSoldOut
	case "list":
		return list{"x", text.Draw(t, "text")}
	case "cancelled":
		return context.Canceled
	case "wrap":
		return fmt.Errorf("%s: %w", text.Draw(t, "text"), someError(t, depth-1))
	case "silent":
		return fmt.Errorf("%w", someError(t, depth-1))
	case "join":
		return errors.Join(someError(t, depth-1), someError(t, depth-1))
	case "both":
		return fmt.Errorf("%w and %w", someError(t, depth-1), someError(t, depth-1))
	}
	return errors.New(text.Draw(t, "text"))
}

// chain returns the registered errors in err, depth first.
func chain(err error) (found []any) {
	switch e := err.(type) { //nolint:errorlint // it unwraps
	case *declined:
		found = append(found, *e)
	case busy:
		found = append(found, e)
	}
	if err == errSoldOut { //nolint:errorlint // the value itself
		found = append(found, err)
	}
	switch e := err.(type) { //nolint:errorlint // it unwraps
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			found = append(found, chain(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			found = append(found, chain(inner)...)
		}
	}
	return found
}

// Messages, registered errors and their order arrive as they were sent, and what
// has arrived is sent on as it is.
func TestTravelLaws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		err := someError(t, 3)
		stored, got := travel(t, err)
		if want := fault.Clip(err.Error(), 2<<10); got.Error() != want {
			t.Fatalf("%q arrives as %q", want, got)
		}
		if len(stored.Causes) < 8 { // nothing is cut
			want, have := chain(err), chain(got)
			if !reflect.DeepEqual(want, have) {
				t.Fatalf("the registered errors %+v arrive as %+v", want, have)
			}
		}
		if diff := cmp.Diff(stored, fault.Encode(got)); diff != "" {
			t.Fatalf("it is not sent on as it came: %s", diff)
		}
	})
}
