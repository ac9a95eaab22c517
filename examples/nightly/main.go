// Command nightly shows a schedule: a job that is made each night at three, by the
// clock of a city, with the night that it is for as its input. It prints the nights to
// come, has one report made at once, and makes up for the last three. Start reading at
// Schedule.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/spec"
)

// Night says which report is to be built.
type Night struct {
	Until string `json:"until"` // RFC 3339
	Full  bool   `json:"full"`
}

// Report builds reports.
var Report = engine.NewJob("report.build", func(_ context.Context, n Night) (string, error) {
	return "the report until " + n.Until, nil
})

// Schedule has a report built each night. Applying it again, as each start of the
// program does, changes nothing.
func Schedule(ctx context.Context, eng *engine.Engine) error {
	_, err := Report.Schedule(ctx, eng, Night{Until: "${tick.time}", Full: true}, engine.Schedule{
		Name: "nightly-report", Cron: "0 3 * * *", Zone: "Europe/Berlin",
		Jitter:             spec.Duration(10 * time.Second), // not everything at three sharp
		PauseAfterFailures: 5,
	})
	return err
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "millrace-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer srv.Close()
	nc, err := srv.Connect(engine.ConnectOptions()...)
	if err != nil {
		return err
	}
	defer nc.Close()
	eng, err := engine.Connect(ctx, nc)
	if err != nil {
		return err
	}
	defer eng.Close()
	worker, err := eng.Worker(engine.WorkerOptions{}, Report)
	if err != nil {
		return err
	}
	working, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(working) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()
	return show(ctx, eng)
}

// show applies the schedule, and shows what it does.
func show(ctx context.Context, eng *engine.Engine) error {
	if err := Schedule(ctx, eng); err != nil {
		return err
	}
	next, err := eng.NextTicks(ctx, "nightly-report", 3)
	if err != nil {
		return err
	}
	for _, tick := range next.Ticks {
		fmt.Println("to come:", tick.Local.Format(time.RFC1123))
	}
	now, err := eng.TriggerSchedule(ctx, "nightly-report")
	if err != nil {
		return err
	}
	result, err := now.Wait(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("by hand: %s\n", result)
	past, err := eng.BackfillSchedule(ctx, "nightly-report", time.Now().Add(-3*24*time.Hour), time.Time{})
	if err != nil {
		return err
	}
	for _, id := range past.Jobs {
		info, err := eng.Wait(ctx, id)
		if err != nil {
			return err
		}
		fmt.Printf("made up for: %s\n", info.Result)
	}
	return nil
}
