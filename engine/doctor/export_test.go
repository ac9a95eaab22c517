package doctor

import (
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// Grants returns what a role needs to publish and to subscribe to, for the jobs
// of a queue.
func Grants(pub *publish.Publisher, role, queue string) (publish, subscribe []string) {
	g := scope{pub, streams.DefaultNamespace, queue}.grants(role)
	return g.publish, g.subscribe
}
