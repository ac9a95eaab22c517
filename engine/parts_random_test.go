package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/internal/natstest"
)

// Random programs: two to six nodes have parts of broadcasts and shards of jobs, in all
// sorts of ways, while they are killed, stopped, cut off, frozen and drained, die at
// any of their writes, and come back or do not; the owner dies too, mailboxes are
// emptied, rings get lost. Then the nodes are there again, and everything has ended:
// no part ran on another node, or twice without a reason; each shard was accepted
// once, and never had two live owners. A program is made of its seed; how its
// goroutines interleave is not, so one that failed may need a few tries.
func TestPartsRandom(t *testing.T) {
	first, many := uint64(1), *seeds
	if many == 0 {
		if many = 15; raceDetector {
			many = 5
		}
	}
	if *seed > 0 {
		first, many = *seed, 1
	}
	for s := first; s < first+uint64(many); s++ {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				w := &randomParts{rng: rand.New(rand.NewPCG(s, 7)), steady: map[string]time.Time{}, left: map[string]time.Time{}, labels: map[string]bool{}, drained: map[string]*life{}}
				w.fleet = &fleet{T: t, srv: srv, slots: 1 + w.rng.IntN(3), nodes: map[string]*life{}, redriven: map[string]time.Time{}}
				w.play()
				if t.Failed() {
					t.Logf("again: go test ./engine -run TestPartsRandom -seed %d", s)
					for _, line := range w.story {
						t.Log(line)
					}
				}
			})
		})
	}
}

// randomParts is the world of one program.
type randomParts struct {
	*fleet
	rng    *rand.Rand
	story  []string
	server *process // that serves, if the nodes do not stand for owner

	ids     []string             // that nodes have, or had
	labels  map[string]bool      // of the nodes: who is in the north
	steady  map[string]time.Time // since when nothing happened to a node
	left    map[string]time.Time // since when it is gone
	drained map[string]*life     // who was asked to drain, and which process said that it does
	casts   []cast
	sharded []string
}

// cast is a broadcast, and what is known of it.
type cast struct {
	id        string
	must, not []string // nodes that have a part, and that have none
}

func (w *randomParts) play() {
	w.unlucky = w.luck
	w.owners = w.rng.IntN(2) == 0
	w.client = start(w, w.srv, "client", nil)
	w.reserve()
	for i := range 2 + w.rng.IntN(5) {
		w.ids = append(w.ids, string(rune('a'+i)))
		w.labels[w.ids[i]] = w.rng.IntN(2) == 0
		w.appear(w.ids[i])
	}
	time.Sleep(3 * time.Second)
	for range 25 {
		w.step()
		time.Sleep(time.Duration(w.rng.IntN(3000)) * time.Millisecond)
		w.notice()
	}
	w.settle()
	for _, c := range w.casts {
		info := w.await(c.id, 15*time.Minute)
		w.check(info)
		w.checkMembers(c, info)
	}
	for _, id := range w.sharded {
		w.checkShards(w.await(id, 15*time.Minute))
	}
	w.checkLeft()
}

// note adds to what was done, for who reads a failure.
func (w *randomParts) note(format string, args ...any) {
	w.story = append(w.story, time.Now().Format(clock)+" "+fmt.Sprintf(format, args...))
}

// reserve starts a process that serves, unless the nodes do.
func (w *randomParts) reserve() {
	if w.owners {
		return
	}
	w.server = start(w, w.srv, "server", nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	p := w.server
	go func() { defer close(done); _ = p.Serve(ctx) }()
	w.Cleanup(func() { cancel(); <-done })
}

func (w *randomParts) appear(id string) {
	w.note("start %s", id)
	if w.labels[id] {
		w.begin(id, "north")
	} else {
		w.begin(id)
	}
	delete(w.left, id)
	w.steady[id] = time.Now()
}

// luck breaks some of the writes of a node, and sometimes the node with them.
func (w *randomParts) luck(node string) func(natstest.Write) natstest.Fault {
	rng := rand.New(rand.NewPCG(w.rng.Uint64(), 0))
	return func(wr natstest.Write) natstest.Fault {
		if partPoint(wr) == "" {
			return natstest.Pass
		}
		switch draw := rng.IntN(240); {
		case draw == 0 && wr.Reply != "":
			return natstest.LoseAnswer
		case draw == 1:
			return natstest.CutBefore
		case draw == 2 && wr.Reply != "":
			return natstest.CutAfter
		case draw < 6:
			w.fall(node)
			return natstest.DownBefore
		case draw < 9 && wr.Reply != "":
			w.fall(node)
			return natstest.DownAfter
		}
		return natstest.Pass
	}
}

// fall notes that a node dies at a write.
func (w *randomParts) fall(node string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.nodes[node]; l != nil {
		l.fallen = true
	}
}

// notice buries who died at a write.
func (w *randomParts) notice() {
	w.mu.Lock()
	var fallen []string
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		if w.nodes[id].fallen {
			fallen = append(fallen, id)
		}
	}
	w.mu.Unlock()
	for _, id := range fallen {
		w.note("%s has died at a write", id)
		w.lose(id, w.kill)
	}
}

func (w *randomParts) lose(id string, how func(string)) {
	how(id)
	w.left[id] = time.Now()
	delete(w.steady, id)
}

// step does one thing.
func (w *randomParts) step() {
	id := w.ids[w.rng.IntN(len(w.ids))]
	w.mu.Lock()
	there := w.nodes[id] != nil
	w.mu.Unlock()
	switch draw := w.rng.IntN(20); {
	case draw < 6:
		w.cast()
	case draw < 9:
		w.cut()
	case draw == 9:
		w.end()
	case draw == 10:
		w.again()
	case draw == 11:
		w.damage()
	case draw == 12 && !w.owners:
		w.note("the server dies")
		w.server.link.Down()
		w.reserve()
	case !there:
		if w.rng.IntN(4) == 0 {
			w.ids = append(w.ids, fmt.Sprint("n", len(w.ids)))
			id = w.ids[len(w.ids)-1]
		}
		w.appear(id)
	default:
		w.hurt(id)
	}
}

// hurt does something to a node.
func (w *randomParts) hurt(id string) {
	l, length := w.nodes[id], time.Duration(w.rng.IntN(12_000))*time.Millisecond
	w.steady[id] = time.Now()
	switch w.rng.IntN(8) {
	case 0:
		w.note("stop %s", id)
		w.lose(id, w.halt)
	case 1:
		w.note("freeze %s for %v", id, length)
		back := w.cutOff(l, l.p.link.Freeze, l.p.link.Thaw)
		time.Sleep(length)
		back()
	case 2:
		w.note("cut %s off for %v", id, length)
		back := w.cutOff(l, l.p.link.Down, l.p.link.Up)
		time.Sleep(length)
		back()
	case 3:
		w.note("cut %s", id)
		l.p.link.Cut()
	case 4:
		w.drain(id)
	default:
		w.note("kill %s", id)
		w.lose(id, w.kill)
		if w.rng.IntN(2) == 0 {
			w.appear(id)
		}
	}
	if _, gone := w.left[id]; !gone {
		w.steady[id] = time.Now()
	}
}

// drain drains a node, or ends that. The next process under its ID keeps to it.
func (w *randomParts) drain(id string) {
	ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
	defer cancel()
	if _, asked := w.drained[id]; asked {
		if w.client.Undrain(ctx, id) == nil {
			w.note("undrained %s", id)
			delete(w.drained, id)
		}
		return
	}
	w.drained[id] = nil
	if w.client.Drain(ctx, id) == nil {
		w.note("drained %s", id)
		w.drained[id] = w.nodes[id]
	}
}

// damage takes away what is stored of the mailboxes, or keeps them from ringing.
func (w *randomParts) damage() {
	js := jetStream(w, w.client.nc)
	mail, err := js.Stream(w.Context(), "mr_default_mail")
	if err != nil {
		w.Fatal(err)
	}
	if w.rng.IntN(3) == 0 {
		w.note("purge the mailboxes")
		if err := mail.Purge(w.Context()); err != nil {
			w.Fatal(err)
		}
		return
	}
	config := mail.CachedInfo().Config
	if config.RePublish == nil {
		return
	}
	w.note("no rings for some seconds")
	loud := *config.RePublish
	config.RePublish = nil
	if _, err := js.UpdateStream(w.Context(), config); err != nil {
		w.Fatal(err)
	}
	w.cast()
	w.cut()
	config.RePublish = &loud
	if _, err := js.UpdateStream(w.Context(), config); err != nil {
		w.Fatal(err)
	}
}

// end cancels a broadcast.
func (w *randomParts) end() {
	if len(w.casts) == 0 {
		return
	}
	id := w.casts[w.rng.IntN(len(w.casts))].id
	w.note("cancel %s", id)
	if _, err := w.client.Cancel(w.Context(), id); err != nil && !strings.Contains(err.Error(), "cannot cancel while") {
		w.Errorf("cancel %s: %v", id, err)
	}
}

// again redrives a broadcast, if it has ended.
func (w *randomParts) again() {
	if len(w.casts) == 0 {
		return
	}
	id := w.casts[w.rng.IntN(len(w.casts))].id
	now := time.Now()
	_, err := w.client.Retry(w.Context(), id)
	switch {
	case err == nil:
		w.note("redrive %s", id)
		w.redriven[id] = now
	case !errors.Is(err, engine.ErrNotEnded):
		w.Errorf("redrive %s: %v", id, err)
	}
}

// settle makes everything whole.
func (w *randomParts) settle() {
	w.unlucky = nil
	w.notice()
	for _, id := range w.ids {
		w.mu.Lock()
		l := w.nodes[id]
		w.mu.Unlock()
		if l != nil { // its luck would go on
			w.lose(id, w.kill)
		}
	}
	time.Sleep(2 * lease)
	for _, id := range w.ids {
		w.appear(id)
		w.insist(id)
	}
}

// insist undrains a node.
func (w *randomParts) insist(id string) {
	w.Helper()
	var err error
	for range 30 {
		ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
		err = w.client.Undrain(ctx, id)
		cancel()
		if err == nil {
			return
		}
		time.Sleep(time.Second)
	}
	w.Errorf("undrain %s: %v", id, err)
}

// checkLeft fails the test unless the mailboxes are empty in the end.
func (w *randomParts) checkLeft() {
	w.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	if n := streamInfo(w, w.client.nc, "mr_default_mail").State.Msgs; n != 0 {
		w.Errorf("%d messages are left in mailboxes", n)
	}
}
