package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/millrace/millrace/e2e/ledger"
)

// turn is how long a throttled process runs and stands, together.
const turn = 100 * time.Millisecond

// Throttle lets the present life run for a share of the time, more than 0 and
// less than 1, and stops it in between, as if it had to share its CPU with many.
// Until that is over the process must not be stopped otherwise.
func (l *Life) Throttle(share float64) (stop func()) {
	l.c.t.Helper()
	if share <= 0 || share >= 1 {
		l.c.t.Fatalf("cluster: throttle %s to %v: say more than 0 and less than 1", l.name, share)
	}
	p := l.current()
	fault := p.entry(ledger.Entry{What: ledger.Fault, Verb: ledger.Throttle})
	l.c.write(fault)
	ctx, cancel := context.WithCancel(l.c.ctx)
	var done sync.WaitGroup
	done.Go(func() {
		if err := p.takeTurns(ctx, time.Duration(share*float64(turn))); err != nil {
			l.c.t.Error(err)
		}
	})
	l.c.wait.Go(done.Wait)
	return sync.OnceFunc(func() {
		cancel()
		done.Wait()
		fault.What, fault.At = ledger.Heal, 0
		l.c.write(fault)
	})
}

// takeTurns lets p run so much of each turn. In the end p runs.
func (p *process) takeTurns(ctx context.Context, run time.Duration) error {
	next := time.NewTimer(run)
	defer next.Stop()
	for running := true; ; {
		select {
		case <-ctx.Done():
			return p.signal(thaw)
		case <-p.done:
			return nil
		case <-next.C:
		}
		sign, long := freeze, turn-run
		if !running {
			sign, long = thaw, run
		}
		if err := p.signal(sign); err != nil {
			return err
		}
		running = !running
		next.Reset(long)
	}
}
