package name_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/name"
	"pgregory.net/rapid"
)

func TestChecks(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 300)
	tests := []struct {
		check func(string) error
		given string
		want  string // the error; empty means none
	}{
		{queue, "email", ""},
		{queue, "E-mail_2", ""},
		{queue, long[:64], ""},
		{queue, "", `queue is empty: give it 1 to 64 of A-Z a-z 0-9 _ -`},
		{queue, "a.b", `queue "a.b" contains '.': use only A-Z a-z 0-9 _ -`},
		{queue, "a\nb", `queue "a\nb" contains '\n': use only A-Z a-z 0-9 _ -`},
		{queue, "grün", `queue "grün" contains 'ü': use only A-Z a-z 0-9 _ -`},
		{queue, "\xff", `queue "\xff" contains '�': use only A-Z a-z 0-9 _ -`},
		{queue, long[:65], `queue "` + long[:65] + `" has 65 bytes: shorten it to at most 64`},
		{queue, long, `queue "` + long[:80] + `"… has 300 bytes: shorten it to at most 64`},

		{name.CheckLocal, long[:128], ""},
		{name.CheckLocal, long[:129], `ID "` + long[:80] + `"… has 129 bytes: shorten it to at most 128`},
		{name.CheckLocal, "a=b", `ID "a=b" contains "=", which is kept for IDs that the engine makes: leave it out`},
		{name.CheckMade, "nightly=1700000000000", ""},
		{name.CheckMade, "a==b", ""},
		{name.CheckMade, "a", `ID "a" is not one that the engine makes: it lacks a "="`},
		{name.CheckMade, "=a", `ID "=a" begins or ends with "=": the engine makes no such ID`},
		{name.CheckMade, "a=", `ID "a=" begins or ends with "=": the engine makes no such ID`},
		{name.CheckMade, "a=b.c", `ID "a=b.c" contains '.': use only A-Z a-z 0-9 _ -`},
		{name.CheckMade, "a=" + long[:198], ""},
		{name.CheckMade, "a=" + long[:199], `ID "a=` + long[:78] + `"… has 201 bytes: the engine makes at most 200`},

		{name.CheckKind, "email.send", ""},
		{name.CheckKind, "email", ""},
		{name.CheckKind, "", `kind is empty: give it a name such as order.created`},
		{name.CheckKind, "email..send", `kind "email..send" has nothing before, after or between its dots: write it like order.created`},
		{name.CheckKind, ".send", `kind ".send" has nothing before, after or between its dots: write it like order.created`},
		{name.CheckKind, "email.", `kind "email." has nothing before, after or between its dots: write it like order.created`},
		{name.CheckKind, "email send", `kind "email send" contains ' ': use only A-Z a-z 0-9 _ - and dots`},
		{name.CheckKind, long[:65], `kind "` + long[:65] + `" has 65 bytes between its dots: shorten that part to at most 64`},
		{name.CheckKind, long[:129], `kind "` + long[:80] + `"… has 129 bytes: shorten it to at most 128`},
		{name.CheckEvent, "order.paid", ""},
		{name.CheckEvent, "order/paid", `event "order/paid" contains '/': use only A-Z a-z 0-9 _ - and dots`},

		{name.CheckSubject, "orders.created", ""},
		{name.CheckSubject, "orders.*.created", ""},
		{name.CheckSubject, "orders.>", ""},
		{name.CheckSubject, "*.orders", ""},
		{name.CheckSubject, "mr", ""},
		{name.CheckSubject, "bestellungen.größe", ""},
		{name.CheckSubject, "", `subject is empty: give one such as orders.created`},
		{name.CheckSubject, "orders created", `subject "orders created" contains white space or what is no text: leave it out`},
		{name.CheckSubject, "orders.\xff", `subject "orders.\xff" contains white space or what is no text: leave it out`},
		{name.CheckSubject, "orders..created", `subject "orders..created" has nothing before, after or between its dots: write it like orders.created`},
		{name.CheckSubject, "orders.>.created", `subject "orders.>.created" has ">" before its end: use "*" there`},
		{name.CheckSubject, "orders.cre*", `subject "orders.cre*" has a wildcard inside "cre*": "*" and ">" stand for whole tokens`},
		{name.CheckSubject, "$SYS.>", `subject "$SYS.>" belongs to NATS itself: choose one of your own`},
		{name.CheckSubject, "_INBOX.a", `subject "_INBOX.a" belongs to NATS itself: choose one of your own`},
		{name.CheckSubject, "mr.default.>", `subject "mr.default.>" belongs to Millrace: choose one that does not begin with "mr"`},
		{name.CheckSubject, ">", `subject ">" takes in nearly everything on the server: name its first or second token, or give a stream and a filter`},
		{name.CheckSubject, "*", `subject "*" takes in nearly everything on the server: name its first or second token, or give a stream and a filter`},
		{name.CheckSubject, "*.*.a", `subject "*.*.a" takes in nearly everything on the server: name its first or second token, or give a stream and a filter`},
		{name.CheckSubject, "*.>", `subject "*.>" takes in nearly everything on the server: name its first or second token, or give a stream and a filter`},
		{name.CheckSubject, long, `subject "` + long[:80] + `"… has 300 bytes: shorten it to at most 256`},
		{name.CheckFilter, ">", ""},
		{name.CheckFilter, "$KV.a.>", ""},
	}
	for _, tt := range tests {
		got := ""
		if err := tt.check(tt.given); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%.80q:\n got %s\nwant %s", tt.given, got, tt.want)
		}
	}
}

func queue(s string) error { return name.Check("queue", s) }

func TestQueue(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string]string{"email.send": "email", "email": "email", "a.b.c": "a"} {
		if got := name.Queue(kind); got != want {
			t.Errorf("Queue(%q) = %q, want %q", kind, got, want)
		}
	}
}

func TestSplitJobID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"order.1":       "",
		"order.a=1":     "",
		"order":         `job ID "order" has 0 dots: write <queue>.<id>, with exactly one`,
		"order.fulfil.": `job ID "order.fulfil." has 2 dots: write <queue>.<id>, with exactly one`,
		".1":            `job ID ".1": queue is empty: give it 1 to 64 of A-Z a-z 0-9 _ -`,
		"order.":        `job ID "order.": ID is empty: give it 1 to 128 of A-Z a-z 0-9 _ -`,
		"order.a b":     `job ID "order.a b": ID "a b" contains ' ': use only A-Z a-z 0-9 _ -`,
		"a=b.c":         `job ID "a=b.c": queue "a=b" contains '=': use only A-Z a-z 0-9 _ -`,
	} {
		queue, local, err := name.SplitJobID(id)
		switch {
		case err == nil && want != "":
			t.Errorf("SplitJobID(%q) is accepted, want %s", id, want)
		case err == nil && name.JobID(queue, local) != id:
			t.Errorf("SplitJobID(%q) = %q, %q", id, queue, local)
		case err != nil && err.Error() != want:
			t.Errorf("SplitJobID(%q):\n got %v\nwant %s", id, err, want)
		}
	}
}

// What is refused is refused in one line, whatever it was.
func FuzzChecks(f *testing.F) {
	for _, s := range []string{"", "a", "a.b", "a=b", "*.>", "\xff\n", "order.a=b", strings.Repeat("ü", 99)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _, splitErr := name.SplitJobID(s)
		for _, err := range []error{
			queue(s), name.CheckLocal(s), name.CheckMade(s), name.CheckKind(s), name.CheckEvent(s),
			name.CheckSubject(s), name.CheckFilter(s), splitErr,
		} {
			if err != nil && (strings.ContainsAny(err.Error(), "\n\r") || len(err.Error()) > 900) {
				t.Errorf("%q is refused with %q", s, err)
			}
		}
		if name.CheckLocal(s) == nil && name.CheckMade(s) == nil {
			t.Errorf("%q is both a user's and the engine's", s)
		}
		if splitErr == nil && strings.Count(s, ".") != 1 {
			t.Errorf("%q is a job ID", s)
		}
	})
}

// A queue and a local ID that pass make an ID that comes apart as it was.
func TestJobIDLaw(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		q := rapid.StringMatching(`[A-Za-z0-9_-]{1,64}`).Draw(t, "queue")
		l := rapid.StringMatching(`[A-Za-z0-9_-]{1,60}(=[A-Za-z0-9_-]{1,60})?`).Draw(t, "local")
		gotQueue, gotLocal, err := name.SplitJobID(name.JobID(q, l))
		if err != nil || gotQueue != q || gotLocal != l {
			t.Fatalf("%q and %q come back as %q and %q: %v", q, l, gotQueue, gotLocal, err)
		}
	})
}
