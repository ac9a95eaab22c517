package demo

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/examples/orders"
	"github.com/millrace/millrace/internal/name"
)

// Plan is what a demo publishes, and what should follow from it: computed from
// the definitions alone, so that it can be held against what the engine did.
type Plan struct {
	// Pause is how long to wait after each event.
	Pause time.Duration

	triggers []spec.Trigger
	events   []*nats.Msg

	jobs      int // that should be there in the end
	started   int // events that start jobs
	filtered  int // events that start nothing because of when
	repeated  int // events whose jobs are all there already
	untouched int // events on subjects without a trigger
	unmapped  int // events that start nothing because a trigger cannot map them
	dead      int // events that should be dead: one for each trigger that cannot map it
}

// NewPlan returns the plan to publish events, with the triggers of the example.
func NewPlan(events []*nats.Msg) (*Plan, error) {
	p := &Plan{events: events}
	docs, err := spec.Parse("examples/orders/triggers.yaml", orders.Triggers)
	if err != nil {
		return nil, err
	}
	for _, doc := range docs {
		p.triggers = append(p.triggers, doc.(spec.Trigger))
	}
	return p, p.foresee()
}

// Triggers returns how many triggers there are.
func (p *Plan) Triggers() int { return len(p.triggers) }

// foresee says what should follow from the events.
func (p *Plan) foresee() error {
	mappings := make([]*spec.Mapping, len(p.triggers))
	for i, t := range p.triggers {
		var err error
		if mappings[i], err = spec.Compile(t); err != nil {
			return err
		}
	}
	known := map[string]bool{}
	for n, msg := range p.events {
		var fits, skipped, again, fresh, dead int
		for i, t := range p.triggers {
			if !spec.Contains(t.Subject, msg.Subject) {
				continue
			}
			fits++
			mapped, err := mappings[i].Map(spec.Event{Subject: msg.Subject, Data: msg.Data, Header: msg.Header, Time: time.Now(), Sequence: uint64(n + 1)})
			id := name.JobID(name.Queue(t.Job), name.Token(mapped.ID))
			switch {
			case err != nil:
				dead++
			case mapped.Skip:
				skipped++
			case known[id]:
				again++
			default:
				known[id] = mapped.ID != "" // the jobs of a trigger without id are all different
				fresh++
			}
		}
		p.jobs += fresh
		p.dead += dead
		switch {
		case fresh > 0:
			p.started++
		case dead > 0:
			p.unmapped++
		case fits == 0:
			p.untouched++
		case again > 0:
			p.repeated++
		case skipped > 0:
			p.filtered++
		}
	}
	return nil
}
