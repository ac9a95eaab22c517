package cluster

import (
	"encoding/json"
	"fmt"
)

// overview is what a server says of JetStream.
type overview struct {
	Storage int64 `json:"storage"` // bytes that it stores
	Meta    struct {
		Leader string `json:"leader"`
	} `json:"meta_cluster"`
	Accounts []struct {
		Streams []stream `json:"stream_detail"`
	} `json:"account_details"`
}

// stream is a stream as one of its servers sees it.
type stream struct {
	Name    string `json:"name"`
	Cluster struct {
		Leader   string `json:"leader"`
		Replicas []struct {
			Name    string `json:"name"`
			Current bool   `json:"current"`
			Offline bool   `json:"offline"`
		} `json:"replicas"`
	} `json:"cluster"`
}

// look asks the server what it knows about JetStream.
func (s *Server) look() (o overview, err error) {
	resp, err := get(s.c.ctx, "http://"+s.monitor+"/jsz?accounts=1&streams=1")
	if err != nil {
		return o, fmt.Errorf("cluster: ask %s: %w", s.name, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&o); err != nil {
		return o, fmt.Errorf("cluster: ask %s: %w", s.name, err)
	}
	return o, nil
}

// streams returns the streams of all accounts.
func (o overview) streams() (all []stream) {
	for _, a := range o.Accounts {
		all = append(all, a.Streams...)
	}
	return all
}

// Leader returns the server that says of itself that it leads the stream, or nil
// if none does, as during an election. Names of streams are such as
// KV_mr_default_jobs and mr_default_work.
func (c *Cluster) Leader(stream string) *Server {
	for _, s := range c.servers {
		if s.Leads(stream) {
			return s
		}
	}
	return nil
}

// Leads reports whether the server says of itself that it leads the stream. One
// that is down, or frozen, says nothing.
func (s *Server) Leads(stream string) bool {
	o, err := s.look()
	if err != nil {
		return false
	}
	for _, st := range o.streams() {
		if st.Name == stream && (len(s.c.servers) == 1 || st.Cluster.Leader == s.name) {
			return true
		}
	}
	return false
}

// Settle waits until all servers are up, and every stream has a leader and
// replicas that are current.
func (c *Cluster) Settle() {
	c.t.Helper()
	for _, s := range c.servers {
		if !s.Alive() {
			c.t.Fatalf("cluster: settle: %s does not run: start it first", s.name)
		}
	}
	var why error
	defer func() {
		if why != nil {
			c.t.Logf("cluster: not settled: %v", why)
		}
	}()
	c.Await("all servers and streams are well", func() bool {
		why = c.unsettled()
		return why == nil
	})
}

// unsettled returns what Settle waits for, or nil.
func (c *Cluster) unsettled() error {
	led := map[string]bool{} // streams, by whether their leader says so
	for _, s := range c.servers {
		if !s.Alive() {
			return fmt.Errorf("%s has ended", s.name)
		}
		if ask(s.c.ctx, "http://"+s.monitor+"/healthz") != ready { // with all that it stores
			return fmt.Errorf("%s is not ready", s.name)
		}
		o, err := s.look()
		if err != nil {
			return err
		}
		if len(c.servers) == 1 {
			return nil
		}
		if o.Meta.Leader == "" {
			return fmt.Errorf("%s knows no meta leader", s.name)
		}
		for _, st := range o.streams() {
			led[st.Name] = led[st.Name] || st.Cluster.Leader == s.name
			for _, r := range st.Cluster.Replicas {
				if st.Cluster.Leader == s.name && (!r.Current || r.Offline) {
					return fmt.Errorf("replica of stream %s on %s is not current", st.Name, r.Name)
				}
			}
		}
	}
	for name, ok := range led {
		if !ok {
			return fmt.Errorf("stream %s has no leader", name)
		}
	}
	return nil
}
