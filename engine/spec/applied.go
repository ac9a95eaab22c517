package spec

// What became of a document that was applied, or would become of it.
const (
	Created   = "created"
	Changed   = "changed"
	Unchanged = "unchanged"
)

// Applied is what became of a document that was applied.
type Applied struct {
	// Key is the definition's, such as "trigger.new-orders".
	Key string `json:"key"`
	// Action is Created, Changed or Unchanged.
	Action string `json:"action"`
	// Changes are the fields that differ from before.
	Changes []Change `json:"changes,omitempty"`
	// Revision is that of what is stored now. Of a schedule: it is how an edit says
	// what it has seen.
	Revision uint64 `json:"revision,omitempty"`
}
