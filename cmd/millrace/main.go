// Command millrace shows, runs and operates Millrace: a demo, a development
// server, the engine, workers whose handlers are programs, and everything that
// is done to jobs, events and triggers from a shell.
//
// Start reading at [cli], the whole command line as one struct; each of its
// commands is a type with a Run method, in a file of its own. Commands that
// stay hand their loops to [together]. What is more than a command is a package
// below: program runs the handlers of a worker, demo and bench are what they are
// called, and show is how things look to people.
package main

import (
	"os"
	_ "time/tzdata" // schedules have time zones, and containers often have no data of them
)

func main() { os.Exit(execute(os.Args[1:])) }
