// Package engine runs jobs on NATS JetStream: it is the package that programs
// import.
//
// A [Job] is a handler and the kind under which it is known. [Connect] opens an
// [Engine] on a NATS connection; [Job.Submit] creates a job there; an
// [Engine.Worker] runs those whose kinds it has; [On] lets events on NATS
// subjects submit jobs.
//
//	var Greet = engine.NewJob("greet", func(ctx context.Context, name string) (string, error) {
//		return "hello " + name, nil
//	})
//
//	eng, err := engine.Connect(ctx, nc, engine.Options{})
//	worker, err := eng.Worker(engine.WorkerOptions{}, Greet)
//	go worker.Run(ctx)
//	job, err := Greet.Submit(ctx, eng, "Ann")
//	out, err := job.Wait(ctx)
//
// Start reading at [Worker.Run], then in package attempt: a delivery is claimed,
// run, finished and then acknowledged.
//
//	delivery ──▶ claim ──▶ handler ──▶ finish ──▶ what follows ──▶ acknowledge
//
// # What is promised
//
// A job is started at least once, and exactly one completion of each attempt is
// accepted. A handler may therefore be started again after its node died; it
// can tell by [JobFrom] and pass the fence to a store that checks it.
package engine
