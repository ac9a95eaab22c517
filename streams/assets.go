package streams

import (
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Namespace is one isolated installation inside a NATS account: a prefix of
// every asset's name and of every subject. It is one subject token.
type Namespace string

// DefaultNamespace is used where none is given.
const DefaultNamespace Namespace = "default"

// The buckets, by the name of their asset.
const (
	Jobs   = "jobs"   // the truth about every job: <queue>.<local>
	Nodes  = "nodes"  // beat.<node>, info.<node>, dead.<node>
	Leases = "leases" // owner, bootstrap
	Config = "config" // trigger.<name>, queue.<name>, settings: written by users only
	Cursor = "cursor" // trigger.<name>, unique.<kind>.<key>: written by the engine only
	Blobs  = "blobs"  // <queue>.<local>.<random>: an object store
)

// Class is the priority class of items that ask for none.
const Class = "normal"

// LogLines is how many lines of a job's log are kept: the last ones.
const LogLines = 1000

// Version is the version of the assets below. It grows when a configuration
// changes, so that the newest build that connects brings them up to date.
const Version = 4

// Bucket returns the name of the bucket of an asset.
func (n Namespace) Bucket(asset string) string { return "mr_" + string(n) + "_" + asset }

// bucketStream returns the name of the stream behind the bucket of an asset.
func (n Namespace) bucketStream(asset string) string { return "KV_" + n.Bucket(asset) }

// WorkStream is the name of the stream of what is ready to run.
func (n Namespace) WorkStream() string { return "mr_" + string(n) + "_work" }

// MailStream is the name of the stream of what is ready to run on one node and on no
// other.
func (n Namespace) MailStream() string { return "mr_" + string(n) + "_mail" }

// TimerStream is the name of the stream of what is due later.
func (n Namespace) TimerStream() string { return "mr_" + string(n) + "_timers" }

// CaptureStream is the name of the stream that keeps what arrives on users'
// plain subjects for the triggers on them.
func (n Namespace) CaptureStream() string { return "mr_" + string(n) + "_capture" }

// DeadStream is the name of the stream of events that could not be mapped.
func (n Namespace) DeadStream() string { return "mr_" + string(n) + "_dead" }

// LogStream is the name of the stream of what handlers say about their jobs.
func (n Namespace) LogStream() string { return "mr_" + string(n) + "_logs" }

// BlobStream is the name of the stream behind the object store of what is too large
// for a record.
func (n Namespace) BlobStream() string { return "OBJ_" + n.Bucket(Blobs) }

func (n Namespace) subject(tail string) string { return "mr." + string(n) + "." + tail }

// WorkSubject is where the item of a job lies until a worker has it.
func (n Namespace) WorkSubject(queue, class, local string) string {
	return n.subject("work." + queue + "." + class + "." + local)
}

// MailSubject is where the item of a job lies that is for one node.
func (n Namespace) MailSubject(node, queue, local string) string {
	return n.subject("mail." + node + "." + queue + "." + local)
}

// RingSubject matches where a node hears what is put into its mailbox, for the jobs
// of one queue, or of all for "*".
func (n Namespace) RingSubject(node, queue string) string {
	return n.subject("ring." + node + "." + queue + ".>")
}

// TimerSubject is where the timer of a job lies: one for each purpose, time and
// job. It is filed under the minute in which it is due.
func (n Namespace) TimerSubject(at time.Time, purpose Purpose, queue, local string) string {
	minute := strconv.FormatInt(unixMilli(at)/time.Minute.Milliseconds(), 10)
	return n.subject("timer." + minute + "." + string(purpose) + "." + queue + "." + local)
}

// TimerMinute matches the timers of one minute, counted from 1970.
func (n Namespace) TimerMinute(unixMinute int64) string {
	return n.subject("timer." + strconv.FormatInt(unixMinute, 10) + ".>")
}

// EndedSubject is where the end of a job is announced, on core NATS.
func (n Namespace) EndedSubject(id string) string { return n.subject("ended." + id) }

// NodeFeed is the prefix under which the nodes bucket is republished: the key
// follows it.
func (n Namespace) NodeFeed() string { return n.subject("node.") }

// LeaseFeed is the prefix under which the leases bucket is republished: the key
// follows it.
func (n Namespace) LeaseFeed() string { return n.subject("lease.") }

// ConfigFeed is the prefix under which the config bucket is republished: the key
// follows it.
func (n Namespace) ConfigFeed() string { return n.subject("config.") }

// CtlSubject is where a node answers requests.
func (n Namespace) CtlSubject(node string) string { return n.subject("ctl." + node) }

// DeadSubject is where an event lies that a trigger could not map. The time at
// which the event's stream was created tells sequences of a re-created stream
// apart.
func (n Namespace) DeadSubject(trigger string, created time.Time, sequence uint64) string {
	return n.subject("dead." + trigger + "." + strconv.FormatInt(created.Unix(), 10) + "-" + strconv.FormatUint(sequence, 10))
}

// DeadFilter matches the dead events of one trigger, or of all for "*".
func (n Namespace) DeadFilter(trigger string) string { return n.subject("dead." + trigger + ".*") }

// LogSubject is where the lines lie that handlers say about a job.
func (n Namespace) LogSubject(id string) string { return n.subject("log." + id) }

const (
	// markerTTL is how long the end of a lease or a node stays visible.
	markerTTL = time.Minute
	// duplicates is short because nothing that drives work has a message ID.
	duplicates = 100 * time.Millisecond
	// eventAge is how long captured events wait for their trigger.
	eventAge = 7 * 24 * time.Hour
	// deadAge is how long events that could not be mapped are kept.
	deadAge = 14 * 24 * time.Hour
	// mailAge is how long an item waits for its node. It is longer than jobs are
	// kept; of one that waits for longer the reconciler makes another.
	mailAge = 14 * 24 * time.Hour
	// logAge is how long what handlers say is kept.
	logAge = 14 * 24 * time.Hour
)

// bucket describes a stream that key-value clients can read.
func (n Namespace) bucket(asset string, change func(*jetstream.StreamConfig)) jetstream.StreamConfig {
	name := n.Bucket(asset)
	config := jetstream.StreamConfig{
		Name:              "KV_" + name,
		Subjects:          []string{"$KV." + name + ".>"},
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardNew,
		AllowRollup:       true,
		AllowDirect:       true,
		AllowMsgTTL:       true,
	}
	if change != nil {
		change(&config)
	}
	return config
}

// leases is the first asset: the lease under which the others are made lies
// in it.
func (n Namespace) leases() jetstream.StreamConfig {
	return n.bucket(Leases, func(c *jetstream.StreamConfig) {
		withMarkers(c)
		repeat(c, n.LeaseFeed())
	})
}

// assets are all streams that every installation has.
func (n Namespace) assets() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{
		n.leases(),
		n.bucket(Config, func(c *jetstream.StreamConfig) {
			withMarkers(c)
			repeat(c, n.ConfigFeed())
		}),
		n.bucket(Cursor, nil),
		n.bucket(Nodes, func(c *jetstream.StreamConfig) {
			withMarkers(c)
			repeat(c, n.NodeFeed())
		}),
		n.bucket(Jobs, nil),
		{
			Name:        n.WorkStream(),
			Subjects:    []string{n.subject("work.>")},
			Retention:   jetstream.WorkQueuePolicy,
			Discard:     jetstream.DiscardNew, // what an administrator's limit keeps out is told
			AllowDirect: true,
		},
		{
			Name:              n.MailStream(),
			Subjects:          []string{n.subject("mail.>")},
			MaxMsgsPerSubject: 1, // the newest
			MaxAge:            mailAge,
			Discard:           jetstream.DiscardNew,
			AllowDirect:       true,
			RePublish:         &jetstream.RePublish{Source: n.subject("mail.>"), Destination: n.subject("ring.>")},
		},
		{
			Name:              n.TimerStream(),
			Subjects:          []string{n.subject("timer.>")},
			MaxMsgsPerSubject: 1,
			Discard:           jetstream.DiscardNew,
			AllowDirect:       true,
		},
		{
			Name:              n.DeadStream(),
			Subjects:          []string{n.subject("dead.>")},
			MaxMsgsPerSubject: 1,
			MaxAge:            deadAge,
			AllowDirect:       true,
		},
		{
			Name:              n.LogStream(),
			Subjects:          []string{n.subject("log.>")},
			MaxMsgsPerSubject: LogLines,
			MaxAge:            logAge,
			Discard:           jetstream.DiscardOld, // the last words count
			AllowDirect:       true,
		},
		{
			Name:        n.BlobStream(),
			Subjects:    []string{"$O." + n.Bucket(Blobs) + ".C.>", "$O." + n.Bucket(Blobs) + ".M.>"},
			Discard:     jetstream.DiscardNew,
			AllowRollup: true, // which the tools of NATS write with
			AllowDirect: true,
		},
	}
}

// Streams lists the names of the streams that the namespace may have.
func (n Namespace) Streams() []string {
	names := []string{n.leases().Name, n.CaptureStream()}
	for _, config := range n.assets() {
		names = append(names, config.Name)
	}
	return names
}

// Capture is the stream of events on users' plain subjects, for the subjects
// given. It never acknowledges, or JetStream would answer the requests that
// are meant for a service on the same subject.
func (n Namespace) Capture(subjects []string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        n.CaptureStream(),
		Subjects:    subjects,
		MaxAge:      eventAge,
		NoAck:       true,
		AllowDirect: true,
	}
}

func withMarkers(c *jetstream.StreamConfig) { c.SubjectDeleteMarkerTTL = markerTTL }

// repeat lets the server republish a bucket, markers included, with prefix
// before each key.
func repeat(c *jetstream.StreamConfig, prefix string) {
	c.RePublish = &jetstream.RePublish{Source: c.Subjects[0], Destination: prefix + ">"}
}

// complete fills in what all streams have in common.
func complete(c jetstream.StreamConfig, replicas int) jetstream.StreamConfig {
	c.Description = "Millrace"
	c.Storage = jetstream.FileStorage
	c.Replicas = replicas
	c.MaxConsumers = -1 // the server's default would be 1,000, listings included
	c.Duplicates = duplicates
	c.Metadata = map[string]string{versionKey: strconv.Itoa(Version)}
	return c
}

// keep returns c with what administrators may have set in the stream as it is:
// how much it holds, and where it lies.
func keep(c, before jetstream.StreamConfig) jetstream.StreamConfig {
	c.MaxBytes, c.MaxMsgs, c.Placement = before.MaxBytes, before.MaxMsgs, before.Placement
	return c
}

// versionKey names the version of the assets in a stream's metadata.
const versionKey = "millrace.version"
