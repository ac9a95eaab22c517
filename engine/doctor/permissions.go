package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/nodes"
	"github.com/millrace/millrace/streams"
)

// RoleClient is whoever submits jobs, looks at them and cancels them.
const RoleClient = "client"

// Roles are what a user may be let do in a namespace. Who keeps it may do all
// that the others do.
var Roles = []string{RoleClient, nodes.RoleWorker, nodes.RoleServe}

// grants are subjects that a role needs, with wildcards.
type grants struct{ publish, subscribe []string }

// probe is a queue, a job and a node that nobody has.
const probe = "doctor"

// scope is where a role is to be played.
type scope struct {
	pub   *publish.Publisher
	ns    streams.Namespace
	queue string // "*" for all
}

// api adds a kind of request about some streams, or about consumers of theirs.
func (g *grants) api(s scope, request string, names ...string) {
	for _, n := range names {
		g.publish = append(g.publish, s.pub.API(request+"."+n))
	}
}

// put adds the keys of a bucket.
func (g *grants) put(s scope, asset, keys string) {
	subject := "$KV." + s.ns.Bucket(asset) + "." + keys
	if s.pub.Domain() != "" {
		subject = s.pub.API(subject)
	}
	g.publish = append(g.publish, subject)
}

// grants returns what a role needs, apart from the inbox.
func (s scope) grants(role string) grants {
	var g grants
	mr, bucket := "mr."+string(s.ns)+".", func(asset string) string { return "KV_" + s.ns.Bucket(asset) }
	config, cursor, jobs, nodesStream := bucket(streams.Config), bucket(streams.Cursor), bucket(streams.Jobs), bucket(streams.Nodes)
	work, mail, timers, logs := s.ns.WorkStream(), s.ns.MailStream(), s.ns.TimerStream(), s.ns.LogStream()

	g.publish = append(g.publish, s.pub.API("INFO"))
	g.api(s, "STREAM.INFO", s.ns.Streams()...)
	g.api(s, "STREAM.MSG.GET", config, cursor, jobs, nodesStream, bucket(streams.Leases), work, mail, timers)
	g.api(s, "DIRECT.GET", config, cursor, jobs, nodesStream, work, mail, timers, s.ns.DeadStream(), logs)
	g.api(s, "STREAM.MSG.DELETE", jobs, cursor, work, mail, timers)
	g.api(s, "STREAM.PURGE", logs)
	g.api(s, "CONSUMER.INFO", work+".*")
	g.put(s, streams.Jobs, s.queue+".>")
	g.put(s, streams.Cursor, "unique.>") // of all kinds: their names do not say which queue
	g.put(s, streams.Cursor, "shards.*")
	g.publish = append(g.publish, mr+"work."+s.queue+".>", mr+"mail.*."+s.queue+".>", mr+"timer.*.*."+s.queue+".>", mr+"ended."+s.queue+".>", mr+"ctl.>")
	g.subscribe = append(g.subscribe, mr+"ended."+s.queue+".>")
	switch role {
	case RoleClient:
		for _, request := range []string{"CONSUMER.CREATE", "CONSUMER.DELETE", "CONSUMER.MSG.NEXT"} {
			g.api(s, request, jobs+".>", logs+".>")
		}
	case nodes.RoleWorker:
		g.api(s, "CONSUMER.MSG.NEXT", work+"."+s.queue)
		g.api(s, "CONSUMER.CREATE", work+"."+s.queue+".>")
		g.put(s, streams.Nodes, ">")
		g.publish = append(g.publish, publish.AcksOf(work, s.queue)...)
		g.publish = append(g.publish, mr+"log."+s.queue+".>", nats.InboxPrefix+">") // others ask it
		g.subscribe = append(g.subscribe, mr+"ctl.>", mr+"config.>", mr+"work."+s.queue+".>", mr+"ring.*."+s.queue+".>")
	case nodes.RoleServe:
		g.serve(s)
	}
	return g
}

// serve adds what keeping the namespace needs.
func (g *grants) serve(s scope) {
	bucket := func(asset string) string { return "KV_" + s.ns.Bucket(asset) }
	g.api(s, "STREAM.CREATE", s.ns.Streams()...)
	g.api(s, "STREAM.UPDATE", s.ns.Streams()...)
	for _, stream := range []string{s.ns.WorkStream(), bucket(streams.Jobs), bucket(streams.Config), bucket(streams.Cursor), s.ns.TimerStream(), s.ns.CaptureStream()} {
		g.api(s, "CONSUMER.*", stream+".>")
		g.api(s, "CONSUMER.MSG.NEXT", stream+".>")
	}
	for _, asset := range []string{streams.Jobs, streams.Nodes, streams.Leases, streams.Config, streams.Cursor} {
		g.put(s, asset, ">")
	}
	g.publish = append(g.publish, "mr."+string(s.ns)+".>", nats.InboxPrefix+">")
	g.subscribe = append(g.subscribe, "mr."+string(s.ns)+".>")
}

// seeRoles finds out what the roles need and this user may not. It publishes what
// has no effect: to JetStream what is no request, to streams what they refuse.
func (c *chart) seeRoles(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), sightTime) // a denial is no end
	defer stop()
	c.lacks = map[string][]string{}
	roles := Roles
	if c.opts.Role != "" {
		roles = []string{c.opts.Role}
	}
	for _, role := range roles {
		c.denials.take()
		g := scope{c.pub, c.opts.Namespace, c.opts.Queue}.grants(role)
		for _, pattern := range g.publish {
			msg := &nats.Msg{Subject: literal(pattern), Header: nats.Header{nats.ExpectedStreamHdr: {probe}}, Data: []byte("{")}
			if err := c.nc.PublishMsg(msg); err != nil {
				return err
			}
		}
		for _, pattern := range g.subscribe {
			sub, err := c.nc.SubscribeSync(literal(pattern))
			if err != nil {
				return err
			}
			defer sub.Unsubscribe() //nolint:errcheck // it fails only if the connection is closed
		}
		if err := c.nc.FlushWithContext(ctx); err != nil {
			return err
		}
		settle(ctx)
		c.lacks[role] = c.denials.take()
	}
	return nil
}

// literal returns a subject that a pattern matches.
func literal(pattern string) string {
	return strings.NewReplacer("*", probe, ">", probe).Replace(pattern)
}

// checkRoles says what this user cannot be, and why.
func checkRoles(c *chart) []Finding {
	can, why := []string(nil), []string(nil)
	for _, role := range Roles {
		lacks, asked := c.lacks[role]
		switch {
		case asked && len(lacks) == 0:
			can = append(can, role)
		case asked:
			why = append(why, fmt.Sprintf("as %s it may not %s", role, briefly(lacks)))
		}
	}
	const remedy = "grant that, or use another user"
	switch {
	case c.opts.Role != "" && len(why) > 0:
		return []Finding{wrong(remedy, "this user cannot be what it should: %s", why[0])}
	case len(can) == 0:
		return []Finding{warning(remedy, "this user can only look: %s", why[0])}
	case len(why) > 0:
		return fine("this user can be %s; %s", strings.Join(can, " and "), strings.Join(why, "; "))
	}
	return fine("this user can be %s", strings.Join(can, ", "))
}

// briefly names the first of what was denied.
func briefly(lacks []string) string {
	lacks = slices.Compact(slices.Sorted(slices.Values(lacks)))
	if len(lacks) == 1 {
		return lacks[0]
	}
	return fmt.Sprintf("%s, and %d more", lacks[0], len(lacks)-1)
}
