package nodes

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/kv"
	"github.com/millrace/millrace/streams"
)

// Serves finds out whether a node with [RoleServe] is registered. It is not safe
// for concurrent use.
type Serves struct {
	lease    time.Duration
	beats    *kv.Bucket[kv.Held]
	infos    *kv.Bucket[Info]
	verdicts *kv.Bucket[uint64]

	// vigils are kept over the beats of those who were last seen to serve.
	vigils map[string]kv.Vigil
}

// NewServes returns a Serves for a namespace and its lease.
func NewServes(pub *publish.Publisher, ns streams.Namespace, lease time.Duration) *Serves {
	return &Serves{
		lease:    lease,
		beats:    openBeats(pub, ns),
		infos:    openInfos(pub, ns),
		verdicts: openVerdicts(pub, ns),
	}
}

// Any reports whether a node that serves has a beat, as some milliseconds ago. A
// beat does not count if a verdict covers it, or if it has not moved for two
// leases: a server that was killed may have brought it back, see [kv.Vigil].
// While one that was found before still serves, that costs three small requests,
// however many nodes there are.
func (s *Serves) Any(ctx context.Context) (bool, error) {
	found, err := s.known(ctx)
	if err == nil && !found {
		found, err = s.search(ctx)
	}
	if err != nil {
		return false, fmt.Errorf("nodes: look for a node that serves: %w", err)
	}
	return found, nil
}

// known looks only at those who were found by the last search.
func (s *Serves) known(ctx context.Context) (bool, error) {
	if len(s.vigils) == 0 {
		return false, nil
	}
	var keys []string
	for node := range s.vigils {
		keys = append(keys, infoKey(node))
	}
	infos, err := s.infos.GetManyStale(ctx, keys)
	if err != nil {
		return false, err
	}
	return s.alive(ctx, infos)
}

// search looks at all nodes.
func (s *Serves) search(ctx context.Context) (bool, error) {
	infos, err := s.infos.ListStale(ctx, infoKey("*"))
	if err != nil {
		return false, err
	}
	return s.alive(ctx, infos)
}

// alive reports whether one of the nodes described serves and is there.
func (s *Serves) alive(ctx context.Context, infos []kv.Entry[Info]) (bool, error) {
	var beatKeys, deadKeys []string
	vigils := make(map[string]kv.Vigil)
	for _, info := range infos {
		if info.Value.Role == RoleServe {
			node := strings.TrimPrefix(info.Key, infoKey(""))
			beatKeys, deadKeys = append(beatKeys, beatKey(node)), append(deadKeys, deadKey(node))
			vigils[node] = s.vigils[node]
		}
	}
	s.vigils = vigils
	if len(vigils) == 0 {
		return false, nil
	}
	beats, err := s.beats.GetManyStale(ctx, beatKeys)
	if err != nil || len(beats) == 0 {
		return false, err
	}
	verdicts, err := s.verdicts.GetManyStale(ctx, deadKeys)
	if err != nil {
		return false, err
	}
	dead, found := deadUpTo(verdicts), false
	for _, beat := range beats {
		node := strings.TrimPrefix(beat.Key, beatKey(""))
		vigil := vigils[node]
		stuck := vigil.Over(beat.Revision, s.lease)
		vigils[node] = vigil
		found = found || !stuck && kv.EpochOf(beat) > dead[node]
	}
	return found, nil
}
