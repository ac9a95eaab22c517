// Command shards imports a table in six pieces at the same time, and adds up what
// the pieces say. Start reading at load.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/millrace/millrace/embedded"
	"github.com/millrace/millrace/engine"
)

// Import is a job that is run in shards: each takes the rows that are its own.
var Import = engine.NewJob("table.import", load)

// rows stands for a table: the ID of each row.
var rows = func() []int {
	ids := make([]int, 1000)
	for i := range ids {
		ids[i] = i
	}
	return ids
}()

// load is the handler of one shard. How many there are never changes while they run,
// and no two processes have the same one, so every row has one shard that takes it.
func load(ctx context.Context, table string) (int, error) {
	shard := engine.JobFrom(ctx).Shard
	if shard == nil {
		return 0, engine.Fail(errors.New("a table is imported in shards"))
	}
	n := 0
	for _, id := range rows {
		if id%shard.Total == shard.Index {
			n++ // write the row under its ID: a shard that was tried before may have written some
		}
	}
	engine.JobFrom(ctx).Logger().Info("imported", "table", table, "country", shard.Parameter, "rows", n)
	return n, nil
}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "millrace-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	counts, err := importAll(ctx, dir)
	if err != nil {
		return err
	}
	sum := 0
	for i, n := range counts {
		fmt.Printf("shard %d: %d rows\n", i, n)
		sum += n
	}
	fmt.Printf("%d rows in all\n", sum)
	return nil
}

// importAll runs everything, on a server that keeps its data in dir, and returns how
// many rows each shard has imported.
func importAll(ctx context.Context, dir string) (counts []int, err error) {
	srv, err := embedded.Start(ctx, embedded.Options{Dir: dir})
	if err != nil {
		return nil, err
	}
	defer srv.Close()
	nc, err := srv.Connect(engine.ConnectOptions()...)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	eng, err := engine.Connect(ctx, nc)
	if err != nil {
		return nil, err
	}
	defer eng.Close()
	worker, err := eng.Worker(engine.WorkerOptions{Slots: 3}, Import)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	defer func() {
		cancel()
		err = errors.Join(err, <-ended)
	}()

	for !eng.Joined() { // shards would wait for a node, but not be placed at once
		select {
		case err := <-ended:
			ended <- nil
			return nil, err
		case <-time.After(10 * time.Millisecond):
		}
	}
	all, err := Import.SubmitShards(ctx, eng, "orders", engine.ShardOptions{
		Parameters: []string{"at", "be", "ch", "de", "es", "fr"}, // one for each shard
		Strategy:   engine.ShardsEven,
	})
	if err != nil {
		return nil, err
	}
	return all.Wait(ctx)
}
