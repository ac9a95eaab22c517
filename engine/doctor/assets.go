package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/streams"
)

// serveAgain is what makes assets that are missing or old.
const serveAgain = `start "millrace serve" of the newest version as a user who may create streams`

// checkNamespace looks whether all streams are there.
func checkNamespace(c *chart) (found []Finding) {
	for _, a := range c.assets {
		if a.Info == nil {
			found = append(found, wrong(serveAgain, "stream %s is missing", a.Name))
		}
	}
	return found
}

// checkVersions looks whether all streams are of one version, and of this build's.
func checkVersions(c *chart) []Finding {
	byVersion := map[int][]string{}
	for _, a := range c.assets {
		if a.Info != nil && a.Name != c.opts.Namespace.CaptureStream() { // that is brought up to date by its next change
			byVersion[a.Version] = append(byVersion[a.Version], a.Name)
		}
	}
	versions := slices.Sorted(maps.Keys(byVersion))
	newest := versions[len(versions)-1]
	var found []Finding
	for _, v := range versions[:len(versions)-1] {
		found = append(found, wrong(serveAgain, "%s of version %d, and others of version %d: an upgrade did not end", are(byVersion[v]), v, newest))
	}
	switch {
	case len(found) > 0:
	case newest > streams.Version:
		return []Finding{wrong("upgrade it", "the streams are of version %d, and this program knows version %d", newest, streams.Version)}
	case newest < streams.Version:
		return []Finding{warning(serveAgain, "the streams are of version %d, and this program makes version %d", newest, streams.Version)}
	}
	return found
}

// are names streams and says that they are something.
func are(names []string) string {
	if len(names) == 1 {
		return "stream " + names[0] + " is"
	}
	return "streams " + strings.Join(names, ", ") + " are"
}

// checkConfiguration looks whether somebody has changed streams by hand.
func checkConfiguration(c *chart) (found []Finding) {
	for _, a := range c.assets {
		if len(a.Changed) > 0 {
			found = append(found, wrong("set that back with the nats command; a new stream of another namespace has it right",
				"the configuration of stream %s was changed: %s", a.Name, strings.Join(a.Changed, ", ")))
		}
	}
	return found
}

// manyServers is how many servers there are where three replicas fit.
const manyServers = 3

// checkReplicas looks whether the streams have as many replicas as the cluster
// could give them, and whether all of these are well. How many servers have
// JetStream is not told to clients: the known servers are counted.
func checkReplicas(c *chart) (found []Finding) {
	few, most, clustered := []string(nil), 0, false
	for _, a := range c.assets {
		if a.Info == nil {
			continue
		}
		most = max(most, a.Info.Config.Replicas)
		if cluster := a.Info.Cluster; cluster != nil && cluster.Name != "" {
			clustered = true
			found = append(found, ailing(a.Name, cluster)...)
		}
	}
	for _, a := range c.assets {
		if a.Info != nil && clustered && a.Info.Config.Replicas < max(most, min(len(c.nc.Servers()), manyServers)) {
			few = append(few, a.Name)
		}
	}
	if len(few) > 0 {
		found = append(found, warning(`raise that, one stream after the other: "nats stream edit NAME --replicas 3"`,
			"%s kept by fewer servers than there are in the cluster: what fails with one is gone for good", are(few)))
	}
	if len(found) == 0 {
		return fine("each stream has %s", count(most, "replica"))
	}
	return found
}

// ailing finds replicas of a stream that are not well.
func ailing(stream string, cluster *jetstream.ClusterInfo) (found []Finding) {
	if cluster.Leader == "" {
		found = append(found, wrong("start the servers that are missing", "stream %s has no leader", stream))
	}
	for _, peer := range cluster.Replicas {
		switch {
		case peer.Offline:
			found = append(found, wrong("start the server, or remove it from the cluster", "server %s, which keeps stream %s, is offline", peer.Name, stream))
		case !peer.Current:
			found = append(found, warning("see its log, if that lasts", "server %s is %d operations behind with stream %s", peer.Name, peer.Lag, stream))
		}
	}
	return found
}

const (
	muchPercent = 75 // of a limit
	fullPercent = 90 // from here on jobs are refused, see [streams.Limits.Check]
)

// checkStorage looks how much of the limits is used.
func checkStorage(c *chart) (found []Finding) {
	for _, u := range c.uses {
		remedy := fmt.Sprintf("raise its %s limit, or delete jobs", u.Setting)
		switch p := u.Percent(); {
		case p >= fullPercent:
			found = append(found, wrong(remedy, "%v, %.0f%%: new jobs are refused", u, p))
		case p >= muchPercent:
			found = append(found, warning(remedy, "%v, %.0f%%: from %d%% on new jobs are refused", u, p, fullPercent))
		}
	}
	if len(found) > 0 {
		return found
	}
	if len(c.uses) == 0 {
		return fine("no limit is set; what the server has for all accounts, and its disk, cannot be seen by clients")
	}
	fullest := slices.MaxFunc(c.uses, func(a, b streams.Use) int { return cmp.Compare(a.Percent(), b.Percent()) })
	return fine("%v, %.0f%%, which is the most of any limit", fullest, fullest.Percent())
}

// checkRecords looks how many records there are of jobs that have ended.
func checkRecords(c *chart) []Finding {
	most := c.opts.MostEnded
	switch {
	case c.ended > most:
		return []Finding{warning("shorten the retention of queues, or delete jobs",
			"%d records are of jobs that have ended, more than %d: further ones are kept for less time than they should be", c.ended, most)}
	case float64(c.ended) >= fullPercent/100.0*float64(most):
		return []Finding{warning("shorten the retention of queues, or delete jobs",
			"%d records are of jobs that have ended: above %d they are kept for less time than they should be", c.ended, most)}
	}
	return fine("%d records are of jobs that have ended", c.ended)
}

// checkDeadEvents looks for events that no trigger could map.
func checkDeadEvents(c *chart) []Finding {
	dead := c.stream(c.opts.Namespace.DeadStream())
	if dead == nil || dead.State.Msgs == 0 {
		return nil
	}
	return []Finding{warning(`see "millrace event dead list"; they are kept for 14 days`,
		"%s could not be mapped to jobs", count(int(dead.State.Msgs), "event"))}
}
