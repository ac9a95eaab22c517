package tick

import (
	"testing"
	"time"

	"github.com/millrace/millrace/engine/spec"
)

// A job that an owner made just before it died stands for no other tick, even if the
// next one has it amid many that are rolled up.
func TestMadeBeforeDeathIsNoRollUp(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*spec.Schedule){
		"found late": func(*spec.Schedule) {},
		"paused":     func(s *spec.Schedule) { s.Paused = new(true) },
		"moved":      func(s *spec.Schedule) { s.Queue = "other" },
		"waits":      func(s *spec.Schedule) { s.Overlap = spec.Overlap{Policy: spec.OverlapCancelPrevious} },
		"bounded":    func(s *spec.Schedule) { s.Overlap = spec.Overlap{Policy: spec.OverlapAllow, Limit: 1} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := spec.Schedule{Every: spec.Duration(100 * time.Millisecond), Overlap: spec.Overlap{Policy: spec.OverlapSkip}}
			place, now := stored(worldStart), worldStart
			c := Cursor{}
			advance := func() Step {
				step := compile(t, s, place).Advance(c, Facts{Now: now})
				return step
			}
			for ; now.Before(worldStart.Add(70 * time.Second)); now = now.Add(100 * time.Millisecond) {
				c = advance().Cursor
			}
			s.Overlap = spec.Overlap{}
			place.Revision, place.Stored = 2, now.Add(-time.Millisecond)
			step := advance()
			for ; !step.Plain; step = advance() {
				c, now = step.Cursor, now.Add(100*time.Millisecond)
			}
			made := step.Acts[0] // and the owner dies
			now = now.Add(30 * time.Second)
			switch name {
			case "found late":
				now = now.Add(time.Minute)
			case "waits":
				now = now.Add(-30 * time.Second)
			}
			edit(&s)
			place.Revision, place.Stored = 3, now.Add(-time.Second)
			c.Holders = []string{"another"}
			for range 10 {
				step = advance()
				c, now = step.Cursor, now.Add(time.Second)
				for _, a := range step.Acts {
					if a.ID == made.ID && a.More != nil {
						t.Errorf("%s stands for %d more", a.ID, a.More.Count)
					}
					if a.At.Before(made.At) && a.More != nil && !a.More.Until.Before(made.At) {
						t.Errorf("%s stands for %s, which was made", a.ID, made.ID)
					}
				}
				if b := c.Burst; b != nil && b.Roll != nil && b.Roll.ID == made.ID {
					t.Errorf("%s is to stand for others", made.ID)
				}
			}
		})
	}
}
