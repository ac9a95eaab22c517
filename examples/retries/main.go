// Command retries shows what a handler can do that cannot do its work now: be
// tried again as its definition says, or when it says so itself, with or without
// counting a failure; or give up. Start reading at fetch.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

// site stands for a web site that has its moods: what it answers, one after the
// other.
type site []int

// fetch is the handler of the jobs.
func (s site) fetch(ctx context.Context, report string) (string, error) {
	switch status := s[engine.JobFrom(ctx).Attempt-1]; status {
	case http.StatusOK:
		return "the report of " + report, nil
	case http.StatusAccepted: // it is being made: no failure
		return "", engine.Snooze(50 * time.Millisecond)
	case http.StatusTooManyRequests: // the site knows best when to come back
		return "", engine.RetryAfter(50*time.Millisecond, errors.New("too many requests"))
	case http.StatusNotFound: // that will not change
		return "", engine.Fail(fmt.Errorf("there is no report of %s", report))
	default: // as the definition says
		return "", fmt.Errorf("the site answers %d", status)
	}
}

func main() {
	moody := site{http.StatusBadGateway, http.StatusTooManyRequests, http.StatusAccepted, http.StatusOK}
	if err := run(context.Background(), moody); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s site) error {
	dir, err := os.MkdirTemp("", "millrace-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	info, err := report(ctx, dir, s)
	if err != nil {
		return err
	}
	for _, a := range info.Attempts {
		why := ""
		if a.Error != nil {
			why = ": " + a.Error.Message
		}
		fmt.Printf("attempt %d %s%s\n", a.Number, a.Outcome, why)
	}
	fmt.Printf("%s after %d failures: %s\n", info.State, info.Failures, info.Result)
	return nil
}

// report runs one job that fetches a report, on a server that keeps its data in
// dir, and returns the job as it ended.
func report(ctx context.Context, dir string, s site) (info engine.JobInfo, err error) {
	fetch := engine.NewJob("report.fetch", s.fetch, engine.JobOptions{
		MaxAttempts: 3,                                                     // failures, not attempts
		Retry:       engine.Retry{Delay: 20 * time.Millisecond, Factor: 3}, // 20ms, 60ms, …, each ±10 %
	})
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir})
	if err != nil {
		return info, err
	}
	defer srv.Close()
	nc, err := srv.Connect(engine.ConnectOptions()...)
	if err != nil {
		return info, err
	}
	defer nc.Close()
	eng, err := engine.Connect(ctx, nc)
	if err != nil {
		return info, err
	}
	defer eng.Close()
	worker, err := eng.Worker(engine.WorkerOptions{}, fetch)
	if err != nil {
		return info, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()

	job, err := fetch.Submit(ctx, eng, "november", engine.SubmitOptions{Delay: 50 * time.Millisecond})
	if err != nil {
		return info, err
	}
	return eng.Wait(ctx, job.ID)
}
