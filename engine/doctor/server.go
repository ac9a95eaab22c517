package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/millrace/millrace/streams"
)

// checkConnection says how far away the server is.
func checkConnection(c *chart) []Finding {
	return fine("%s answers within %v", c.nc.ConnectedUrlRedacted(), c.trip.Round(time.Microsecond))
}

// checkServer looks at the version of the server.
func checkServer(c *chart) []Finding {
	version, level := c.nc.ConnectedServerVersion(), c.account.API.Level
	if level < streams.MinLevel {
		return []Finding{wrong("upgrade it to nats-server 2.12 or later",
			"%s runs nats-server %s with API level %d, which is too old", c.nc.ConnectedUrlRedacted(), version, level)}
	}
	domain := ""
	if c.account.Domain != "" {
		domain = ", domain " + c.account.Domain
	}
	return fine("%s runs nats-server %s, API level %d%s", c.nc.ConnectedUrlRedacted(), version, level, domain)
}

// mostAhead is how wrong the clock of a machine may be.
const mostAhead = 5 * time.Second

// checkClock compares the clocks. A wrong one does no harm to jobs.
func checkClock(c *chart) []Finding {
	off, how := c.ahead.Round(time.Millisecond), "ahead of"
	if off < 0 {
		off, how = -off, "behind"
	}
	if off < mostAhead {
		return fine("this machine's clock is at most %v %s the server's", off, how)
	}
	return []Finding{warning("let NTP set both; jobs go by the server's clock and are not affected, what logs say is",
		"this machine's clock is %v %s the server's", off, how)}
}

// syncing is how the server syncs its files, if it says so.
type syncing struct {
	server string // its name; empty if it does not say
	Config struct {
		Interval time.Duration `json:"sync_interval"`
		Always   bool          `json:"sync_always"`
	} `json:"config"`
}

// serverStatus is where servers tell about JetStream. Only users of the system
// account may ask there, and those to whom it is exported.
const serverStatus = "$SYS.REQ.SERVER.PING.JSZ"

func (c *chart) seeSync(ctx context.Context) error {
	msg, err := c.pub.Request(ctx, serverStatus, nil)
	if err != nil && ctx.Err() == nil && !errors.Is(err, jetstream.ErrNoStreamResponse) {
		return err
	}
	if err != nil {
		c.denials.take()
		return nil //nolint:nilerr // as a rule nobody may ask
	}
	var answer struct {
		Server struct {
			Name string `json:"name"`
		} `json:"server"`
		Data syncing `json:"data"`
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return err
	}
	c.sync, c.sync.server = answer.Data, answer.Server.Name
	return nil
}

// usualSync is the server's default.
const usualSync = 2 * time.Minute

// checkSync says what a power failure costs.
func checkSync(c *chart) []Finding {
	s := c.sync
	switch {
	case s.server == "":
		return fine("how often the server syncs to disk cannot be seen by this user: sync_interval, 2m unless set, is what a power failure costs where there is one replica")
	case s.Config.Always:
		return fine("server %s syncs every write", s.server)
	case s.Config.Interval > usualSync:
		return []Finding{warning("lower sync_interval in its configuration, or use three replicas",
			"server %s syncs every %v: a power failure may cost what was stored in that time", s.server, s.Config.Interval)}
	}
	return fine("server %s syncs every %v, which is what a power failure costs where there is one replica", s.server, s.Config.Interval)
}
