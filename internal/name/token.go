package name

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// The mark and the hash that end a token made by [Token].
const (
	mark    = "--"
	hashLen = 16 // 80 bits, five to a character
)

var hashing = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// Token makes a token of any string, always the same one, and different ones of
// different strings. A string that is a token already stays as it is. Of any
// other, every byte that no token may have becomes "-", the beginning is kept,
// and "--" and sixteen characters of hash follow: "Ada Lovelace" becomes
// "Ada-Lovelace--" and the hash.
//
// So that no string can pose as the token of another, one that already ends in
// that way gets a hash of its own. Token is therefore not for tokens that it
// made: Token(Token(s)) differs from Token(s) wherever Token(s) differs from s.
// Two strings share a token only if 80 bits of their SHA-256 and all that is
// kept of them agree.
func Token(s string) string {
	if len(s) <= MaxToken && Check("", s) == nil && !hasHash(s) {
		return s
	}
	return beginning(s, MaxToken-len(mark)-hashLen) + mark + hash(s, hashLen)
}

// Child returns the local ID of the job that a step (or a node, or a shard) of a
// parent has: the parent's queue and local ID and the step, joined by "=". A
// step that is no token goes through [Token]. What would be longer than 200
// bytes keeps its beginning, and "==" and a hash follow. Different parents or
// steps never share a child: a step has no "=", and nothing but a hash follows
// "==" at the end. The parent's ID must be valid.
func Child(parentID, step string) string {
	const childHash = 26 // 128 bits: children are made by machines, in great numbers
	queue, local, _ := strings.Cut(parentID, ".")
	child := queue + "=" + local + "=" + Token(step)
	if len(child) <= MaxMade {
		return child
	}
	kept := strings.TrimRight(child[:MaxMade-len("==")-childHash], "=")
	return kept + "==" + hash(child, childHash)
}

// hasHash reports whether s ends as if [Token] had made it.
func hasHash(s string) bool {
	at := len(s) - hashLen
	if at < len(mark) || s[at-len(mark):at] != mark {
		return false
	}
	for _, c := range []byte(s[at:]) {
		if c < '0' || c > '9' && c < 'a' || c > 'v' {
			return false
		}
	}
	return true
}

// hash returns the first n characters of a hash of s.
func hash(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hashing.EncodeToString(sum[:])[:n]
}

// beginning returns at most n bytes of s as a token may have them.
func beginning(s string, n int) string {
	kept := []byte(s[:min(n, len(s))])
	for i, b := range kept {
		if !tokenByte(b) {
			kept[i] = '-'
		}
	}
	return string(kept)
}
