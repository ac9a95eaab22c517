package name

import (
	"fmt"
	"strings"
)

// maxSubject is the longest subject of a trigger, in bytes. NATS allows more,
// and advises fewer.
const maxSubject = 256

// CheckSubject reports what is wrong with a subject whose messages a trigger
// captures. Wildcards are whole tokens: "*" for one, ">" at the end for one or
// more. What belongs to NATS ("$…", "_INBOX…") or to Millrace ("mr.…") is
// refused, and so are subjects that reach it with wildcards in front: ">" and
// "*" before another wildcard.
func CheckSubject(subject string) error {
	if err := checkForm("subject", subject); err != nil {
		return err
	}
	first, rest, _ := strings.Cut(subject, ".")
	second, _, _ := strings.Cut(rest, ".")
	switch {
	case strings.HasPrefix(subject, "$"), strings.HasPrefix(subject, "_INBOX"):
		return fmt.Errorf("subject %s belongs to NATS itself: choose one of your own", quote(subject))
	case strings.HasPrefix(subject, "mr."):
		return fmt.Errorf("subject %s belongs to Millrace: choose one that does not begin with \"mr\"", quote(subject))
	case first == ">", first == "*" && (second == "" || wildcard(second)):
		return fmt.Errorf("subject %s takes in nearly everything on the server: name its first or second token, or give a stream and a filter", quote(subject))
	}
	return nil
}

// CheckFilter reports what is wrong with a filter of what a stream holds: a
// subject of which only the form matters, since none is out of bounds there.
func CheckFilter(filter string) error {
	return checkForm("filter", filter)
}

func checkForm(what, subject string) error {
	switch {
	case subject == "":
		return fmt.Errorf("%s is empty: give one such as orders.created", what)
	case len(subject) > maxSubject:
		return fmt.Errorf("%s %s has %d bytes: shorten it to at most %d", what, quote(subject), len(subject), maxSubject)
	case strings.ContainsFunc(subject, badSubjectRune):
		return fmt.Errorf("%s %s contains white space or what is no text: leave it out", what, quote(subject))
	}
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return fmt.Errorf("%s %s has nothing before, after or between its dots: write it like orders.created", what, quote(subject))
		case token == ">" && i < len(tokens)-1:
			return fmt.Errorf(`%s %s has ">" before its end: use "*" there`, what, quote(subject))
		case !wildcard(token) && strings.ContainsAny(token, "*>"):
			return fmt.Errorf(`%s %s has a wildcard inside %q: "*" and ">" stand for whole tokens`, what, quote(subject), token)
		}
	}
	return nil
}

func wildcard(token string) bool { return token == "*" || token == ">" }
