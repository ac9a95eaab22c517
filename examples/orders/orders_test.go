package orders_test

import (
	"testing"

	"github.com/millrace/millrace/engine/spec"
	"github.com/millrace/millrace/examples/orders"
)

// The triggers are what apply takes, and start nothing that has no handler.
func TestTriggers(t *testing.T) {
	t.Parallel()
	docs, err := spec.Parse("triggers.yaml", orders.Triggers)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, def := range orders.Handlers() {
		kinds[def.(interface{ Kind() string }).Kind()] = true
	}
	for _, doc := range docs {
		if job := doc.(spec.Trigger).Job; !kinds[job] {
			t.Errorf("%s starts %s, which has no handler", doc.Key(), job)
		}
	}
	if len(docs) != len(kinds) {
		t.Errorf("%d triggers for %d kinds", len(docs), len(kinds))
	}
}
