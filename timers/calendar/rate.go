package calendar

// rate ticks every so often.
type rate struct {
	every  moment
	anchor moment // when one of the ticks is
}

// number returns how many ticks after the anchor the last one is that is not after
// a moment.
func (r rate) number(m moment) int64 { return floorDiv(int64(m-r.anchor), int64(r.every)) }

func (r rate) next(after moment) moment { return r.anchor + moment(r.number(after)+1)*r.every }

func (r rate) count(after, until moment) int64 { return r.number(until) - r.number(after) }
