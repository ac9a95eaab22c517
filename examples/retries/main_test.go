package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each answer of the site leads to what the example says.
func TestReport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		site     site
		state    string
		failures int
		outcomes []string
	}{
		{site{502, 429, 202, 200}, "succeeded", 2, []string{"failed", "failed", "returned", "succeeded"}},
		{site{202, 404}, "failed", 1, []string{"returned", "failed"}},
		{site{500, 202, 500, 500}, "failed", 3, []string{"failed", "returned", "failed", "failed"}},
	} {
		info, err := report(t.Context(), t.TempDir(), c.site)
		if err != nil {
			t.Errorf("%v: %v", c.site, err)
			continue
		}
		var outcomes []string
		for _, a := range info.Attempts {
			outcomes = append(outcomes, a.Outcome)
		}
		if info.State != c.state || info.Failures != c.failures || !cmp.Equal(outcomes, c.outcomes) {
			t.Errorf("%v: %s after %d failures, attempts %v; want %s, %d, %v", c.site, info.State, info.Failures, outcomes, c.state, c.failures, c.outcomes)
		}
	}
}
