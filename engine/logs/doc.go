// Package logs is what handlers say about their jobs, kept beside the jobs.
//
// A [Writer] takes what one attempt says, as a [slog.Handler] does, and stores
// it in the namespace's stream of logs, one message a line:
//
//	handler ──▶ Writer: at most 1,000 lines ──▶ mr.<ns>.log.<queue>.<local> ──▶ Read
//
// Start reading at [Writer.Handler], then at [Log.Read].
//
// Nothing of it blocks a handler. While NATS is away lines wait in memory, and
// the oldest go when there are too many, which a line says then: the stream keeps
// the last lines of a job only, too.
//
// A line is stored at least once: it is sent again when an answer was lost. So
// every line has a number among those of its attempt, and readers pass over what
// they have seen. Lines decide nothing; losing one does no harm to a job.
package logs

import (
	"log/slog"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

// Options configures a [Log].
type Options struct {
	Namespace streams.Namespace
	// Logger is told what became of lines that is nobody's error. Default
	// slog.Default.
	Logger *slog.Logger
}

// Log is what the handlers of a namespace say. It is safe for concurrent use and
// holds no resources of its own.
type Log struct {
	ns  streams.Namespace
	log *slog.Logger
	pub *publish.Publisher
}

// Open returns the log of a namespace whose assets are there.
func Open(pub *publish.Publisher, opts Options) *Log {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	return &Log{ns: opts.Namespace, log: opts.Logger, pub: pub}
}
