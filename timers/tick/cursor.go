package tick

import (
	"time"

	"github.com/millrace/millrace/engine/machine"
)

// Cursor is how far the engine is with a schedule. Only the owner writes it, by its
// revision. It is a value: nothing changes what it refers to. Its JSON has 300 KiB at
// most, and 400 bytes as a rule.
type Cursor struct {
	// Life is Created of the definition. For another life the cursor begins anew.
	Life time.Time `json:"life,omitzero"`
	// Revision and Since are those of the definition by which Next was found.
	Revision uint64    `json:"revision,omitempty"`
	Since    time.Time `json:"since,omitzero"`

	// Next is the tick to come, zero if there is none, ID that of its job, and Number
	// the next number.
	Next   time.Time `json:"next,omitzero"`
	ID     string    `json:"id,omitempty"`
	Number int64     `json:"number,omitempty"`
	// Past is the last tick that was decided, whatever became of it.
	Past time.Time `json:"past,omitzero"`
	// Made is how many ticks became jobs that were not skipped at once.
	Made int64 `json:"made,omitempty"`
	// Late is set while ticks are caught up that were found too late.
	Late *Late `json:"late,omitempty"`

	// Doing was decided, and is not known to be carried out.
	Doing []Act `json:"doing,omitempty"`
	// Holders are the jobs that have a turn and are not known to have ended.
	Holders []string `json:"holders,omitempty"`
	// Queue are the jobs that wait for a turn, apart from those that do so without a
	// limit: see [Facts].
	Queue []string `json:"queue,omitempty"`
	// Unmade is the tick that waits for a turn and has no record yet: by cancel-previous,
	// after a hundred of a burst. See [Burst].
	Unmade *Act `json:"unmade,omitempty"`
	// Open are the last ticks whose jobs are not known to have ended, if the schedule
	// counts failures.
	Open []string `json:"open,omitempty"`
	// Failures is how many jobs failed since one succeeded.
	Failures int `json:"failures,omitempty"`
	// Halted is set if they were too many.
	Halted *Halted `json:"halted,omitempty"`
	// Burst is what was declined of late.
	Burst *Burst `json:"burst,omitempty"`

	// LastAt and LastID are the last tick that became a job. LastEnd is when that
	// ended, if a fixed delay counts from there; zero: it is not known to have ended.
	LastAt  time.Time `json:"last_at,omitzero"`
	LastID  string    `json:"last_id,omitempty"`
	LastEnd time.Time `json:"last_end,omitzero"`
}

// Late are ticks that were found more than a minute late: those before Until. Those
// before Run are declined, the others run.
type Late struct {
	Until time.Time `json:"until"`
	Run   time.Time `json:"run"`
}

// Halted says that the schedule does not tick until somebody writes its definition.
type Halted struct {
	At       time.Time `json:"at"`
	Revision uint64    `json:"revision"` // of the definition that was there
	Failures int       `json:"failures"`
}

// Burst are ticks that were declined, or overtaken while they waited, with less than a
// minute between each and the next. The first hundred have records of their own.
type Burst struct {
	Count int       `json:"count"` // those that have
	Last  time.Time `json:"last"`
	// Roll is the record to come for those that were declined since, one after the
	// other; its time is that of the first of them.
	Roll *Act `json:"roll,omitempty"`
}

const (
	// punctual is how late a tick may be found without being a misfire.
	punctual = time.Minute
	// separate is the pause that ends a burst, and for how long ticks are rolled up.
	separate = time.Minute
	// recorded is how many ticks of a burst have records of their own.
	recorded = 100
	// maxOpen bounds [Cursor.Open].
	maxOpen = 100
	// maxActs bounds the acts of a step, but for a few.
	maxActs = 100
	// promptly is how soon what was carried out is cleared.
	promptly = time.Second
)

// Do is what is done to a job.
type Do string

// What can be done to a job. Doing it again changes nothing, and what is done to a
// job that has ended meanwhile is not done.
const (
	Make    Do = "make"    // create it, to run when it is due
	Wait    Do = "wait"    // create it, to wait for its turn
	Decline Do = "decline" // create it, skipped
	Admit   Do = "admit"   // give it the turn that it waits for
	Dismiss Do = "dismiss" // decline it, which waits for a turn
	Cancel  Do = "cancel"  // cancel it, which goes on
)

// Act is one thing that is to be done.
type Act struct {
	Do Do     `json:"do"`
	ID string `json:"id"`
	// At is the tick, and Number counts it; By is who makes the job. They matter if it
	// is created.
	At     time.Time     `json:"at,omitzero"`
	Number int64         `json:"number,omitempty"`
	By     machine.Maker `json:"by,omitempty"`
	// Code and Why say why it is declined, dismissed or cancelled.
	Code string `json:"code,omitempty"`
	Why  string `json:"why,omitempty"`
	// More are ticks that are declined along with it.
	More *machine.More `json:"more,omitempty"`
}

// Facts are what is known of the moment.
type Facts struct {
	// Now is the server's time, or earlier.
	Now time.Time
	// Ended are jobs of [Definition.Watch] that have ended or are gone.
	Ended []End
	// Wants are jobs that wait for a turn; those in [Cursor.Queue] need not be among
	// them.
	Wants []Want
}

// End is how a job ended.
type End struct {
	ID string
	// State is empty if the record is gone.
	State machine.State
	// At is when it ended, by the server; zero: just now.
	At time.Time
}

// Want is a job that waits for a turn.
type Want struct {
	ID string
	// At is the time of its tick, and By who made it.
	At time.Time
	By machine.Maker
	// Redriven is set if it had ended before.
	Redriven bool
}

// WantOf returns what a job wants that waits for a turn.
func WantOf(j machine.Job) Want {
	w := Want{ID: j.ID, Redriven: !j.Redriven.IsZero()}
	if j.Tick != nil {
		w.At, w.By = j.Tick.At, j.Tick.By
	}
	return w
}

// Step is what follows from a cursor.
type Step struct {
	Cursor Cursor
	// Changed is set if the cursor has to be stored.
	Changed bool
	// Acts are those of Doing, or the one of a plain step.
	Acts []Act
	// Plain is set if the one act follows from the stored cursor: it is carried out
	// first, and the cursor is stored afterwards.
	Plain bool
	// Due is when to look again if nothing is heard before; zero: then never.
	Due time.Time
}
