package enginetest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/engine"
	"github.com/millrace/millrace/engine/enginetest"
)

// Mail is the input of the jobs below.
type Mail struct {
	To string `json:"to"`
}

// Outbox stands for the mail server: it has an address for each mail that it
// took.
type Outbox struct {
	mu       sync.Mutex
	busy     int // how many tries it refuses first
	accepted []string
}

// Send takes ten seconds, and ends with its context.
func (o *Outbox) Send(ctx context.Context, m Mail) (string, error) {
	select {
	case <-time.After(10 * time.Second):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy > 0 {
		o.busy--
		return "", errors.New("the mail server is busy")
	}
	o.accepted = append(o.accepted, m.To)
	return "sent to " + m.To, nil
}

// Accepted returns the addresses of the mails that it took.
func (o *Outbox) Accepted() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.accepted)
}

func TestSend(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		outbox := &Outbox{}
		send := engine.NewJob("mail.send", outbox.Send)
		env.Worker(send)

		job := enginetest.Submit(env, send, Mail{To: "ann@example.com"})
		if got := enginetest.Result(env, job); got != "sent to ann@example.com" {
			t.Errorf("got %q", got)
		}
	})
}

func TestSendBusy(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		outbox := &Outbox{busy: 2}
		send := engine.NewJob("mail.send", outbox.Send, engine.JobOptions{Retry: engine.Retry{Delay: time.Hour}})
		env.Worker(send)

		start := time.Now()
		job := enginetest.Submit(env, send, Mail{To: "ann@example.com"})
		info := env.Await(job.ID)
		if info.State != "succeeded" || info.Attempt != 3 || info.Failures != 2 {
			t.Errorf("it is %s after %d attempts with %d failures", info.State, info.Attempt, info.Failures)
		}
		if took := time.Since(start); took < 108*time.Minute { // two hours, less a tenth
			t.Errorf("it took %v", took)
		}
	}, enginetest.Options{Lease: time.Minute})
}

func TestSendWorkerDies(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		outbox := &Outbox{}
		send := engine.NewJob("mail.send", outbox.Send)
		env.Worker(send)
		env.Worker(send)

		job := enginetest.Submit(env, send, Mail{To: "ann@example.com"})
		first := env.AwaitState(job.ID, "running")
		env.Process(*first.Node).Kill()
		last := env.Await(job.ID)
		if last.State != "succeeded" || last.Attempt != 2 || *last.Node == *first.Node {
			t.Errorf("it is %s, attempt %d on %s", last.State, last.Attempt, *last.Node)
		}
	})
}

func TestSendAnswerLost(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		outbox := &Outbox{}
		send := engine.NewJob("mail.send", outbox.Send)
		worker := env.Worker(send)

		worker.AtWrite(1, enginetest.LoseAnswer) // its next write is the claim
		job := enginetest.Submit(env, send, Mail{To: "ann@example.com"})
		info := env.Await(job.ID)
		if info.Attempt != 1 || info.Failures != 0 || len(outbox.Accepted()) != 1 {
			t.Errorf("attempt %d, %d failures, sent %d times", info.Attempt, info.Failures, len(outbox.Accepted()))
		}
	})
}

func TestSendEveryCrash(t *testing.T) {
	for n, more := 1, true; more; n++ {
		for _, fault := range []enginetest.Fault{enginetest.KillBefore, enginetest.KillAfter} {
			enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
				outbox := &Outbox{}
				send := engine.NewJob("mail.send", outbox.Send)
				worker := env.Worker(send)

				worker.AtWrite(n, fault)
				job := enginetest.Submit(env, send, Mail{To: "ann@example.com"})
				env.Advance(time.Minute)
				more = len(worker.Writes()) >= n
				t.Log(worker.Writes())

				env.Worker(send)
				if info := env.Await(job.ID); info.State != "succeeded" || len(outbox.Accepted()) == 0 {
					t.Errorf("%v at write %d: it is %s", fault, n, info.State)
				}
			})
		}
	}
}

func TestSendOutage(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		outbox := &Outbox{}
		send := engine.NewJob("mail.send", outbox.Send)
		env.Worker(send)

		job := enginetest.Submit(env, send, Mail{To: "ann@example.com"})
		env.AwaitState(job.ID, "running")
		env.KillServer()
		env.Advance(4 * time.Second)
		env.StartServer()
		env.Await(job.ID)
		if n := len(outbox.Accepted()); n != 1 {
			t.Errorf("sent %d times", n)
		}
	})
}

func TestSendEveryMorning(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, env *enginetest.Env) {
		outbox := &Outbox{}
		send := engine.NewJob("mail.send", outbox.Send)
		env.Worker(send)
		morning := engine.Schedule{Name: "morning", Cron: "0 7 * * *", Zone: "Asia/Kolkata"} // 1:30 in UTC
		if _, err := send.Schedule(t.Context(), env.Engine(), Mail{To: "ann@example.com"}, morning); err != nil {
			t.Fatal(err)
		}

		env.Advance(89 * time.Minute)
		if got := outbox.Accepted(); len(got) != 0 {
			t.Errorf("before it is time it sent to %v", got)
		}
		env.Advance(2 * time.Minute)
		if got := outbox.Accepted(); !slices.Equal(got, []string{"ann@example.com"}) {
			t.Errorf("it sent to %v", got)
		}
	}, enginetest.Options{Lease: time.Minute})
}

// Every snippet of the manual is part of this file.
func TestDocs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("story_test.go")
	if err != nil {
		t.Fatal(err)
	}
	snippets := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(page, -1)
	if len(snippets) == 0 {
		t.Error("the manual has no snippets")
	}
	for _, snippet := range snippets {
		if !bytes.Contains(text, snippet[1]) {
			t.Errorf("this is not in story_test.go:\n%s", snippet[1])
		}
	}
}
