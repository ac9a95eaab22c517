package spec

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Misfire says what becomes of ticks that were found more than a minute late, such
// as after nobody was there for a while.
type Misfire struct {
	// Policy is [MisfireOnce], [MisfireSkip] or [MisfireAll]. Default: MisfireOnce.
	Policy string
	// Limit is how many of the last ones run by MisfireAll. Default: 100.
	Limit int
	// Window is how late a tick may be to run by MisfireAll. Default: no bound.
	Window Duration
}

// What can become of ticks that were found too late.
const (
	MisfireOnce = "once" // the last of them runs
	MisfireSkip = "skip" // none of them runs
	MisfireAll  = "all"  // all of them run, within a limit and a window
)

// DefaultMisfireLimit is [Misfire.Limit] of a policy that does not say.
const DefaultMisfireLimit = 100

// Overlap bounds how many jobs of a schedule go on at a time, anywhere. A job goes
// on until it has ended.
type Overlap struct {
	// Policy is [OverlapAllow], [OverlapSkip], [OverlapQueue] or
	// [OverlapCancelPrevious]. Default: OverlapAllow.
	Policy string
	// Limit is how many go on at a time by OverlapAllow, default: any number, and
	// how many wait by OverlapQueue, which needs it.
	Limit int
}

// What can become of a job while others of its schedule go on.
const (
	OverlapAllow          = "allow"           // up to Limit go on, more are skipped
	OverlapSkip           = "skip"            // one goes on, more are skipped
	OverlapQueue          = "queue"           // one goes on, up to Limit wait, more are skipped
	OverlapCancelPrevious = "cancel-previous" // one goes on: it is cancelled, and the new one waits for its end
)

// String returns the policy as people write it.
func (m Misfire) String() string {
	words := m.Policy
	if m.Limit != 0 {
		words += ", limit " + strconv.Itoa(m.Limit)
	}
	if m.Window != 0 {
		words += ", window " + m.Window.String()
	}
	return words
}

// misfireAll is MisfireAll with its fields, as JSON has it.
type misfireAll struct {
	All struct {
		Limit  int      `json:"limit,omitempty"`
		Window Duration `json:"window,omitzero"`
	} `json:"all"`
}

// MarshalJSON writes the policy as a document has it.
func (m Misfire) MarshalJSON() ([]byte, error) {
	if m.Limit == 0 && m.Window == 0 {
		return encode(m.Policy), nil
	}
	var all misfireAll
	all.All.Limit, all.All.Window = m.Limit, m.Window
	return encode(all), nil
}

// UnmarshalJSON reads the policy as a document has it.
func (m *Misfire) UnmarshalJSON(data []byte) error {
	*m = Misfire{}
	if json.Unmarshal(data, &m.Policy) == nil {
		return nil
	}
	var all misfireAll
	if err := json.Unmarshal(data, &all); err != nil {
		return fmt.Errorf("misfire: %w", err)
	}
	*m = Misfire{MisfireAll, all.All.Limit, all.All.Window}
	return nil
}

func (m *Misfire) text() string { return m.String() }

func (m *Misfire) read(r *reader, field string, s scalar) {
	if mapping := mappingOf(s.node); mapping == nil || len(mapping.Values) == 0 {
		r.readWord(&m.Policy, field, s, misfireAdvice)
		return
	}
	all := []entry{{"limit", &m.Limit}, {"window", &m.Window}}
	r.readMapping(field, s, []entry{{MisfireAll, all}})
	m.Policy = MisfireAll
}

const misfireAdvice = "use skip, once, all, or {all: {limit: 100, window: 1h}}"

func (m Misfire) faults() (faults []fault) {
	add := func(field, message string) { faults = append(faults, fault{field: field, message: message}) }
	all := "misfire." + MisfireAll
	switch m.Policy {
	case MisfireAll:
	case "", MisfireOnce, MisfireSkip:
		if m.Limit != 0 || m.Window != 0 {
			add("misfire", "misfire: a limit and a window are for all: "+misfireAdvice)
		}
	default:
		add("misfire", "misfire is "+quote(m.Policy)+": "+misfireAdvice)
	}
	if m.Limit < 0 || m.Limit > maxMisfires {
		add(all+".limit", fmt.Sprintf("misfire.all.limit is %d: use 1 to %d", m.Limit, maxMisfires))
	}
	return faults
}

// String returns the policy as people write it.
func (o Overlap) String() string {
	if o.Limit == 0 {
		return o.Policy
	}
	return o.Policy + ": " + strconv.Itoa(o.Limit)
}

// Turns returns how many jobs go on at a time, 0 for any number, and how many more
// wait.
func (o Overlap) Turns() (most, wait int) {
	switch o.Policy {
	case OverlapSkip:
		return 1, 0
	case OverlapQueue:
		return 1, o.Limit
	case OverlapCancelPrevious:
		return 1, 1
	}
	return o.Limit, 0
}

// Bounded reports whether the schedule bounds how many of its jobs go on at a time:
// then each of them has to be admitted.
func (o Overlap) Bounded() bool {
	most, _ := o.Turns()
	return most > 0
}

// MarshalJSON writes the policy as a document has it.
func (o Overlap) MarshalJSON() ([]byte, error) {
	if o.Limit == 0 {
		return encode(o.Policy), nil
	}
	return encode(map[string]int{o.Policy: o.Limit}), nil
}

// UnmarshalJSON reads the policy as a document has it.
func (o *Overlap) UnmarshalJSON(data []byte) error {
	*o = Overlap{}
	if json.Unmarshal(data, &o.Policy) == nil {
		o.cut()
		return nil
	}
	var limits map[string]int
	if err := json.Unmarshal(data, &limits); err != nil {
		return fmt.Errorf("overlap: %w", err)
	}
	if len(limits) != 1 {
		return fmt.Errorf("overlap has %d fields: %s", len(limits), overlapAdvice)
	}
	for o.Policy, o.Limit = range limits {
	}
	return nil
}

// cut makes a policy and its limit of both in one text, which is what people write
// who put quotes around them.
func (o *Overlap) cut() {
	policy, limit, ok := strings.Cut(o.Policy, ": ")
	if n, err := strconv.Atoi(limit); ok && err == nil && n > 0 {
		o.Policy, o.Limit = policy, n
	}
}

func (o *Overlap) text() string { return o.String() }

func (o *Overlap) read(r *reader, field string, s scalar) {
	if mapping := mappingOf(s.node); mapping == nil || len(mapping.Values) == 0 {
		r.readWord(&o.Policy, field, s, overlapAdvice)
		o.cut()
		return
	}
	var allow, queue int
	r.readMapping(field, s, []entry{{OverlapAllow, &allow}, {OverlapQueue, &queue}})
	switch {
	case allow != 0 && queue != 0:
		r.refuseValue(field, s, "both allow and queue: leave one out")
	case queue != 0:
		*o = Overlap{OverlapQueue, queue}
	case allow != 0:
		*o = Overlap{OverlapAllow, allow}
	}
}

const overlapAdvice = "use skip, cancel-previous, allow, {allow: 2} or {queue: 3}"

func (o Overlap) faults() []fault {
	wrong := ""
	switch o.Policy {
	case "", OverlapAllow:
	case OverlapQueue:
		if o.Limit == 0 {
			wrong = "overlap is queue and does not say how many wait: write {queue: 3}"
		}
	case OverlapSkip, OverlapCancelPrevious:
		if o.Limit != 0 {
			wrong = "overlap is " + o.Policy + ", which has no limit: " + overlapAdvice
		}
	default:
		wrong = "overlap is " + quote(o.Policy) + ": " + overlapAdvice
	}
	if wrong == "" && (o.Limit < 0 || o.Limit > maxTurns) {
		wrong = fmt.Sprintf("overlap is %v: use 1 to %d", o, maxTurns)
	}
	if wrong == "" {
		return nil
	}
	return []fault{{field: "overlap", message: wrong}}
}

// readWord reads a value that is one word.
func (r *reader) readWord(into *string, field string, s scalar, advice string) {
	if s.what != "" {
		r.refuseValue(field, s, s.shown()+": "+advice)
		return
	}
	*into = s.text
}
