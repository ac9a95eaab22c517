package machine

// Debt is something that must follow from a stored job. Carrying one out twice
// does no harm.
type Debt string

// What a stored job can owe.
const (
	// Offer puts the job's item where a worker finds it.
	Offer Debt = "offer"
	// Withdraw deletes the items of a job that nobody shall start any more.
	Withdraw Debt = "withdraw"
	// Announce tells those who wait that the job has ended.
	Announce Debt = "announce"
)

var (
	oweOffer    = []Debt{Offer}
	oweWithdraw = []Debt{Withdraw, Announce}
	oweAnnounce = []Debt{Announce}
)

// Owes returns what must follow from j as it is stored. It depends on nothing
// else: whoever stored j carries it out, and whoever meets j again carries it
// out again before it acknowledges the message that led there, so that a crash
// in between loses nothing. The caller must not change the list.
func (j Job) Owes() []Debt {
	switch {
	case j.State == Pending:
		return oweOffer
	case j.State == Cancelled:
		return oweWithdraw
	case j.State.Final():
		return oweAnnounce
	}
	return nil
}
