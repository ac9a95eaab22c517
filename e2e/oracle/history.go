package oracle

// history is a run, sorted for the checks.
type history struct{ Run }

func newHistory(r Run) *history { return &history{r.withDefaults()} }

func (h *history) story(Violation) string { return "" }
