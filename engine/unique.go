package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// Unique makes a job the only one of its kind that holds a key: whoever submits
// another one with that key meanwhile attaches to the job that is there, see
// [Handle.Created]. A job that is retried after it has ended does not take its key
// back.
type Unique struct {
	// Key is any string of up to 1,024 bytes.
	Key string
	// Scope is for how long the job holds the key. Default: [WhileActive], or
	// [WithinPeriod] if there is a period.
	Scope Scope
	// Period is how long the key is held in scope [WithinPeriod], a second at
	// least, from when the job is submitted.
	Period time.Duration
}

// Scope is for how long a job holds its unique key.
type Scope = machine.Scope

// The scopes of unique keys.
const (
	WhilePending = machine.WhilePending // until its first attempt starts
	WhileActive  = machine.WhileActive  // until it has ended
	WithinPeriod = machine.WithinPeriod // for the period, whatever becomes of it
)

// maxKey bounds the keys, which are part of the records.
const maxKey = 1024

func (u Unique) withDefaults() Unique {
	switch {
	case u.Key == "" || u.Scope != "":
	case u.Period != 0:
		u.Scope = WithinPeriod
	default:
		u.Scope = WhileActive
	}
	return u
}

func (u Unique) validate() error {
	known := u.Scope == WhilePending || u.Scope == WhileActive || u.Scope == WithinPeriod
	switch {
	case u == Unique{}:
		return nil
	case u.Key == "":
		return errors.New("there is a scope or a period without a unique key: say which key")
	case len(u.Key) > maxKey:
		return fmt.Errorf("the unique key has %d bytes: use up to %d", len(u.Key), maxKey)
	case !known:
		return fmt.Errorf("the unique key has the scope %q: use %s, %s or %s", u.Scope, WhilePending, WhileActive, WithinPeriod)
	case u.Scope == WithinPeriod && u.Period < time.Second:
		return fmt.Errorf("the unique key is held for a period of %v: use a second or more", u.Period)
	case u.Scope != WithinPeriod && u.Period != 0:
		return fmt.Errorf("the unique key has a period, and the scope %s: leave one of them out", u.Scope)
	}
	return nil
}

// record returns what the record of a job says of its key.
func (u Unique) record(created time.Time) *machine.Unique {
	if u.Key == "" {
		return nil
	}
	held := &machine.Unique{Key: u.Key, Scope: u.Scope}
	if u.Scope == WithinPeriod {
		held.Until = created.Add(u.Period)
	}
	return held
}

// UniqueInfo is the unique key that a job was submitted with.
type UniqueInfo struct {
	Key   string     `json:"key"`
	Scope string     `json:"scope"` // pending, active or period
	Until *time.Time `json:"until"` // of the period
}

func describeUnique(u *machine.Unique) *UniqueInfo {
	if u == nil {
		return nil
	}
	return &UniqueInfo{Key: u.Key, Scope: string(u.Scope), Until: moment(u.Until)}
}
