package name

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// How long names may be, in bytes.
const (
	MaxToken = 64  // a namespace, queue, class, node, schedule or trigger
	MaxLocal = 128 // the local ID that a user gives to a job
	MaxMade  = 200 // a local ID that the engine made
	MaxKind  = 128 // a kind, or the name of an event
)

// Check reports what is wrong with one token: 1 to 64 of A-Z, a-z, 0-9, "_" and
// "-". The error calls the token by what, such as "queue" or "node".
func Check(what, token string) error {
	return check(what, token, MaxToken)
}

// CheckLocal reports what is wrong with the local ID that a user gives to a job:
// a token of up to 128 bytes. It never contains "=", which marks IDs that the
// engine makes, so the two never meet.
func CheckLocal(local string) error {
	if IsMade(local) {
		return fmt.Errorf(`ID %s contains "=", which is kept for IDs that the engine makes: leave it out`, quote(local))
	}
	return check("ID", local, MaxLocal)
}

// CheckMade reports what is wrong with a local ID that the engine made: tokens
// joined by "=", up to 200 bytes in all. It neither begins nor ends with "=".
func CheckMade(local string) error {
	switch {
	case !IsMade(local):
		return fmt.Errorf(`ID %s is not one that the engine makes: it lacks a "="`, quote(local))
	case len(local) > MaxMade:
		return fmt.Errorf("ID %s has %d bytes: the engine makes at most %d", quote(local), len(local), MaxMade)
	case local[0] == '=' || local[len(local)-1] == '=':
		return fmt.Errorf(`ID %s begins or ends with "=": the engine makes no such ID`, quote(local))
	}
	return checkBytes("ID", strings.ReplaceAll(local, "=", "-"), local, tokenBytes)
}

// IsMade reports whether local is the kind of ID that the engine makes, not a
// user: whether it contains "=".
func IsMade(local string) bool {
	return strings.IndexByte(local, '=') >= 0
}

// CheckKind reports what is wrong with a kind: tokens joined by dots, at most
// 128 bytes in all.
func CheckKind(kind string) error {
	return checkDotted("kind", kind)
}

// CheckEvent reports what is wrong with the name of an event: tokens joined by
// dots, at most 128 bytes in all.
func CheckEvent(event string) error {
	return checkDotted("event", event)
}

// Queue returns where the jobs of a kind wait unless somebody says otherwise:
// the part of the kind before its first dot.
func Queue(kind string) string {
	queue, _, _ := strings.Cut(kind, ".")
	return queue
}

// JobID returns the ID of a job, which is also its key: queue, dot, local ID.
func JobID(queue, local string) string {
	return queue + "." + local
}

// SplitJobID returns the two parts of a job's ID, or what is wrong with it. The
// local part may be a user's or one that the engine made.
func SplitJobID(id string) (queue, local string, err error) {
	queue, local, ok := strings.Cut(id, ".")
	if !ok || strings.Contains(local, ".") {
		return "", "", fmt.Errorf("job ID %s has %d dots: write <queue>.<id>, with exactly one",
			quote(id), strings.Count(id, "."))
	}
	if err := Check("queue", queue); err != nil {
		return "", "", fmt.Errorf("job ID %s: %w", quote(id), err)
	}
	checkLocal := CheckLocal
	if IsMade(local) {
		checkLocal = CheckMade
	}
	if err := checkLocal(local); err != nil {
		return "", "", fmt.Errorf("job ID %s: %w", quote(id), err)
	}
	return queue, local, nil
}

func check(what, token string, limit int) error {
	switch {
	case token == "":
		return fmt.Errorf("%s is empty: give it 1 to %d of %s", what, limit, tokenBytes)
	case len(token) > limit:
		return fmt.Errorf("%s %s has %d bytes: shorten it to at most %d", what, quote(token), len(token), limit)
	}
	return checkBytes(what, token, token, tokenBytes)
}

// tokenBytes names the bytes of a token.
const tokenBytes = "A-Z a-z 0-9 _ -"

// checkBytes looks for a byte in s that no token has; given is what the error
// repeats, allowed what it proposes.
func checkBytes(what, s, given, allowed string) error {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			r, _ := utf8.DecodeRuneInString(s[i:])
			return fmt.Errorf("%s %s contains %q: use only %s", what, quote(given), r, allowed)
		}
	}
	return nil
}

func checkDotted(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("%s is empty: give it a name such as order.created", what)
	case len(s) > MaxKind:
		return fmt.Errorf("%s %s has %d bytes: shorten it to at most %d", what, quote(s), len(s), MaxKind)
	}
	for token := range strings.SplitSeq(s, ".") {
		if token == "" {
			return fmt.Errorf("%s %s has nothing before, after or between its dots: write it like order.created", what, quote(s))
		}
		if len(token) > MaxToken {
			return fmt.Errorf("%s %s has %d bytes between its dots: shorten that part to at most %d",
				what, quote(s), len(token), MaxToken)
		}
		if err := checkBytes(what, token, s, tokenBytes+" and dots"); err != nil {
			return err
		}
	}
	return nil
}

func tokenByte(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' || b == '-'
}

// quote writes s on one line and cuts what is too long to be read.
func quote(s string) string {
	const most = 80
	if len(s) <= most {
		return fmt.Sprintf("%q", s)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%q…", s[:cut])
}

// badSubjectRune reports whether r may not stand in a subject.
func badSubjectRune(r rune) bool {
	return r == utf8.RuneError || unicode.IsSpace(r) || unicode.IsControl(r)
}
