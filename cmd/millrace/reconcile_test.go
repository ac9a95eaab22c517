package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/store"
)

// What was made up for is named, and nothing else.
func TestHealedFields(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		healed engine.Healed
		want   []field
	}{
		"nothing": {engine.Healed{Looked: 3}, []field{{"open jobs", "3"}, {"healed", "nothing"}}},
		"waits":   {engine.Healed{Looked: 1, Waiting: 1}, []field{{"open jobs", "1"}, {"looked at again soon", "1"}, {"healed", "nothing"}}},
		"some": {
			engine.Healed{Looked: 9, Consumers: 1, Healed: map[store.Lack]int{store.LackItem: 2, store.LackTimer: 3, store.LackRemoval: 1, store.LackExpiry: 4}},
			[]field{
				{"open jobs", "9"},
				{"items offered again", "2"},
				{"timers set again", "3"},
				{"expiries set", "4"},
				{"removals completed", "1"},
				{"consumers made again", "1"},
			},
		},
	} {
		if diff := cmp.Diff(c.want, healedFields(c.healed), cmp.AllowUnexported(field{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
