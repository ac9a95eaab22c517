package name_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/name"
	"pgregory.net/rapid"
)

// Tokens are written into keys: they never change.
func TestTokenIsStable(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"o-4711":                "o-4711",
		"":                      "--seoc8gkovge196nr",
		"Ada Lovelace":          "Ada-Lovelace--epq045gn2m8p0f6r",
		"a.b":                   "a-b--5ppjdn4ena3uuhpd",
		"ü":                     "----c1q79ii7babi9lpm",
		strings.Repeat("a", 64): strings.Repeat("a", 64),
		strings.Repeat("a", 65): strings.Repeat("a", 46) + "--cd9m3h4bn7lb2gco",
		"a-b--0123456789abcdef": "a-b--0123456789abcdef--la3p53vsfg138kni",
		"a-b--0123456789abcdez": "a-b--0123456789abcdez",
		"a-b--0123456789abcde":  "a-b--0123456789abcde",
	} {
		if got := name.Token(s); got != want {
			t.Errorf("Token(%q) = %q, want %q", s, got, want)
		}
	}
}

// Children are found again by their names: they never change.
func TestChildIsStable(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("p", 128)
	for _, tt := range []struct{ parent, step, want string }{
		{"order.1", "pay", "order=1=pay"},
		{"order.mail=7=pay", "send", "order=mail=7=pay=send"},
		{"order.1", "pay twice", "order=1=pay-twice--m7t693cq14oiphb3"},
		{"order." + long, strings.Repeat("s", 64), "order=" + long + "=" + strings.Repeat("s", 64)},
		{"orders2." + long, strings.Repeat("s", 64), "orders2=" + long + "=" + strings.Repeat("s", 35) + "==5l0t9ciedf64aqontb4b87e3sg"},
	} {
		got := name.Child(tt.parent, tt.step)
		if got != tt.want {
			t.Errorf("Child(%q, %q) = %q, want %q", tt.parent, tt.step, got, tt.want)
		}
	}
}

// Awkward strings: short ones over a small alphabet, so that tokens meet, and
// tokens that Token itself made.
func awkward() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		s := rapid.OneOf(
			rapid.String(),
			rapid.StringOfN(rapid.SampledFrom([]rune("a-. =ü")), 0, 5, -1),
			rapid.StringMatching(`[a.]{60,70}`),
		).Draw(t, "base")
		for range rapid.IntRange(0, 2).Draw(t, "made") {
			s = name.Token(s)
		}
		return s
	})
}

// A token passes Check, is always the same, and belongs to one string.
func TestTokenLaws(t *testing.T) {
	t.Parallel()
	from := map[string]string{}
	rapid.Check(t, func(t *rapid.T) {
		s := awkward().Draw(t, "s")
		token := name.Token(s)
		if err := name.Check("token", token); err != nil {
			t.Fatal(err)
		}
		if again := name.Token(s); again != token {
			t.Fatalf("Token(%q) is %q, then %q", s, token, again)
		}
		if other, ok := from[token]; ok && other != s {
			t.Fatalf("%q and %q are both %q", s, other, token)
		}
		from[token] = s
	})
}

// A child passes CheckMade, also as a parent, and belongs to one parent and step.
func TestChildLaws(t *testing.T) {
	t.Parallel()
	type origin struct{ parent, step string }
	from := map[string]origin{}
	rapid.Check(t, func(t *rapid.T) {
		parent := name.JobID(
			rapid.StringMatching(`[ab]{1,2}|[a]{64}`).Draw(t, "queue"),
			rapid.StringMatching(`[ab]{1,2}|[a]{128}`).Draw(t, "local"))
		for range rapid.IntRange(1, 4).Draw(t, "depth") {
			o := origin{parent, awkward().Draw(t, "step")}
			child := name.Child(o.parent, o.step)
			if err := name.CheckMade(child); err != nil {
				t.Fatal(err)
			}
			if other, ok := from[child]; ok && other != o {
				t.Fatalf("%v and %v are both %q", o, other, child)
			}
			from[child] = o
			parent = name.JobID(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "next"), child)
		}
	})
}

// All short strings over the bytes that matter have tokens of their own.
func TestTokensOfShortStrings(t *testing.T) {
	t.Parallel()
	from := map[string]string{}
	var visit func(s string)
	visit = func(s string) {
		token := name.Token(s)
		if other, ok := from[token]; ok {
			t.Fatalf("%q and %q are both %q", s, other, token)
		}
		from[token] = s
		if len(s) == 5 {
			return
		}
		for _, b := range []string{"a", "-", "_", ".", " ", "=", "\x00", "\xff"} {
			visit(s + b)
		}
	}
	visit("")
}
