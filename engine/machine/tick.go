package machine

import "time"

// Tick says which schedule made a job, and for which of its times.
type Tick struct {
	Schedule string `json:"schedule"`
	// At is the time of the tick, without jitter.
	At time.Time `json:"at"`
	// Number counts the ticks of the schedule from 1, declined ones included. 0 for a
	// job that the clock did not make.
	Number int64 `json:"number,omitempty"`
	// Revision is that of the definition by which the job was made.
	Revision uint64 `json:"revision"`
	// By is what made the job.
	By Maker `json:"by,omitempty"`
	// Turn is set if the schedule bounds how many of its jobs go on at a time. Such a
	// job runs only after the owner has admitted it, and is counted until it has ended.
	Turn bool `json:"turn,omitempty"`
	// Watched is set if the schedule has to know how the job ends.
	Watched bool `json:"watched,omitempty"`
	// More stands for ticks that were declined along with this one, and that have no
	// record of their own.
	More *More `json:"more,omitempty"`
}

// More are ticks that were declined together.
type More struct {
	// Count is how many they are, the one of the record not among them.
	Count int64 `json:"count"`
	// Until is the time of the last one.
	Until time.Time `json:"until"`
}

// Maker is what made a job of a schedule. The zero value is the clock.
type Maker string

// What makes jobs of schedules apart from the clock.
const (
	ByHand     Maker = "hand"     // somebody triggered it
	ByBackfill Maker = "backfill" // somebody wanted the ticks of the past
)

// The codes of the errors of jobs that were skipped.
const (
	SkipMisfire = "misfire" // the tick was found too late
	SkipOverlap = "overlap" // other jobs of the schedule went on
	SkipPaused  = "paused"  // the schedule was paused before the job began
	SkipChanged = "changed" // the schedule was deleted, or lost the tick, before the job began
	SkipInput   = "input"   // the input has no value for the tick
)

type (
	// Admitted is the owner giving a turn to a job that waits for one.
	Admitted struct{ At time.Time }

	// Declined is a job that its schedule does not let run: as a rule it is made so.
	Declined struct {
		At   time.Time
		Code string // such as [SkipMisfire]
		Why  string // for people
	}
)

func (Admitted) move(Job) Move { return Admit }

func (Declined) move(Job) Move { return Skip }

// What is late already is due at once.
func (e Admitted) apply(j *Job) {
	j.Wait = WaitDelay
	if at := Millisecond(e.At); j.Due.Before(at) {
		j.Due = at
	}
}

func (e Declined) apply(j *Job) {
	j.Error, j.Finished = &Error{Code: e.Code, Message: e.Why}, e.At
}

// takesTurns reports whether j runs only when its schedule has a turn for it.
func (j Job) takesTurns() bool { return j.Tick != nil && j.Tick.Turn }

// Unchecked reports whether j is a tick that may not have been compared with its
// schedule since it was made: nobody has claimed or dispatched it, and nobody asked
// for it.
func (j Job) Unchecked() bool {
	return j.Tick != nil && j.Tick.By == "" && j.Attempt == 0 && j.Redriven.IsZero()
}
