package tick

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/engine/spec"
)

// What reads as a cursor is written as it was read, and can be gone on from.
func FuzzCursor(f *testing.F) {
	now := worldStart.Add(24 * time.Hour)
	paused := true
	var defs []*Definition
	for i, s := range []spec.Schedule{
		{Every: spec.Duration(time.Second)},
		{Every: spec.Duration(100 * time.Millisecond), Misfire: spec.Misfire{Policy: spec.MisfireAll}, Overlap: spec.Overlap{Policy: spec.OverlapQueue, Limit: 3}, MaxRuns: 7},
		{After: spec.Duration(time.Second), PauseAfterFailures: 2, Overlap: spec.Overlap{Policy: spec.OverlapCancelPrevious}},
		{Cron: "@daily", Paused: &paused},
	} {
		defs = append(defs, compile(f, s, Place{Revision: uint64(i) + 1, Stored: worldStart, Created: worldStart, Since: worldStart}))
	}
	for _, d := range defs {
		c := Cursor{}
		for _, after := range []time.Duration{0, time.Hour, time.Hour + time.Second} {
			c = d.Advance(c, Facts{Now: worldStart.Add(after)}).Cursor
			data, err := json.Marshal(c)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(`{"late":{},"burst":{"roll":{}},"halted":{},"doing":[{"more":{}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c, again Cursor
		if json.Unmarshal(data, &c) != nil || c.Burst != nil && c.Burst.Count < 0 || c.Revision > 4 {
			return
		}
		written, err := json.Marshal(c)
		if err != nil {
			return // a year that JSON does not have
		}
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s: %v", written, err)
		}
		if diff := cmp.Diff(c, again, cmp.Transformer("moment", func(at time.Time) int64 { return at.UnixNano() })); diff != "" && len(c.Queue)+len(c.Doing)+len(c.Holders)+len(c.Open) > 0 {
			t.Fatalf("was (-), is (+):\n%s", diff)
		}
		for _, d := range defs {
			step := d.Advance(c, Facts{Now: now, Wants: []Want{{ID: "r.x", At: now}}, Ended: []End{{ID: c.LastID, State: machine.Failed}}})
			if len(step.Acts) > 2*maxActs+len(c.Queue)+10 {
				t.Fatalf("%d acts", len(step.Acts))
			}
		}
	})
}

// BenchmarkAdvance measures the step of one tick.
func BenchmarkAdvance(b *testing.B) {
	for name, s := range map[string]spec.Schedule{
		"policy=none": {Every: spec.Duration(time.Second)},
		"policy=skip": {Every: spec.Duration(time.Second), Overlap: spec.Overlap{Policy: spec.OverlapSkip}},
		"cron=daily":  {Cron: "0 3 * * *", Zone: "Europe/Berlin"},
	} {
		b.Run(name, func(b *testing.B) {
			d := compile(b, s, stored(worldStart))
			c := d.Advance(Cursor{}, Facts{Now: worldStart}).Cursor
			b.ReportAllocs()
			for b.Loop() {
				step := d.Advance(c, Facts{Now: c.Next})
				if len(step.Acts) != 1 {
					b.Fatalf("%d acts", len(step.Acts))
				}
				c = step.Cursor
				c.Holders, c.Burst = nil, nil
			}
		})
	}
}
