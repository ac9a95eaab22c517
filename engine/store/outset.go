package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/engine/machine"
	"github.com/millrace/millrace/internal/publish"
)

// noSnapshot is for a process that fires no timers.
func noSnapshot(context.Context, machine.Job) ([]machine.Share, error) {
	return nil, fmt.Errorf("store: find the nodes of a job: %w", publish.ErrUnsent)
}

// dispatch makes a delayed job wait for its children, once it is due, with the nodes
// that fit by then. If there are none, or they cannot be had for another reason that
// does not pass, it fails.
//
// If the process dies before the write, the timer fires again, and the nodes are
// looked up again: what they were then, nobody was told. If it dies afterwards, the
// timer fires again too, and the children are made of what is stored; the owner does
// so as well. Of two at once one is stored.
func (s *Store) dispatch(ctx context.Context, id string, now time.Time) error {
	var why *machine.Error // there is nobody, if that was found out just now
	for try := 0; ; try++ {
		entry, err := s.readKnown(ctx, id)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		j := entry.Value
		switch {
		case j.Fan == nil || j.State == machine.Removing:
			return nil
		case j.State == machine.Waiting && j.Fan.Total == 0:
			if why == nil {
				why = nobody(j)
			}
			_, err = s.Conclude(ctx, entry, machine.Concluded{At: s.Clock.Now(), Error: why})
			return passRefusal(err)
		case j.State != machine.Scheduled || j.Wait == machine.WaitTurn:
			return s.pay(ctx, entry, passing) // whoever dispatched or ended it may have died then
		case now.Before(j.Due):
			return nil // it is due at another time by now
		}
		if why, err = s.outset(ctx, entry); err != nil {
			return passRefusal(err)
		}
		if err := s.pause(ctx, try); err != nil {
			return err
		}
	}
}

// outset gives a delayed job its shares, unless its schedule declines it. If there are
// none for a reason that does not pass, that is returned. A broadcast that had nodes
// keeps them: it was redriven, and waited for another turn of its schedule.
func (s *Store) outset(ctx context.Context, entry Entry) (why *machine.Error, err error) {
	if unwanted, err := s.unwanted(ctx, entry.Value); err != nil {
		return nil, err
	} else if unwanted != nil {
		_, err = s.move(ctx, entry, unwanted)
		return nil, err
	}
	ev := machine.Dispatched{At: s.Clock.Now()}
	if fan := entry.Value.Fan; fan.Total > 0 && !fan.Shards {
		ev.Shares, ev.Blob, ev.Total = fan.Shares, fan.SharesBlob, fan.Total
		_, err = s.move(ctx, entry, ev)
		return nil, err
	}
	ev.Shares, err = s.snapshot(ctx, entry.Value)
	switch {
	case err != nil && (publish.Passing(err) || ctx.Err() != nil):
		return nil, err
	case err != nil:
		ev.Shares, why = nil, &machine.Error{Code: codeNoNode, Message: err.Error()}
	}
	ev.Total = len(ev.Shares)
	if data, err := json.Marshal(ev.Shares); err != nil {
		return nil, err
	} else if len(data) > s.inline() {
		ev.Shares = nil
		if ev.Blob, err = s.stow(ctx, entry.Key, data); err != nil {
			return nil, err
		}
	}
	_, err = s.moveNaming(ctx, entry, ev, ev.Blob)
	return why, err
}

// codeNoNode is the code of the error of a job that no node could have.
const codeNoNode = "no_node"

// nobody says why a job without shares has failed.
func nobody(j machine.Job) *machine.Error {
	var labels []string
	for _, key := range slices.Sorted(maps.Keys(j.Fan.Select)) {
		labels = append(labels, key+"="+j.Fan.Select[key])
	}
	has := ""
	if len(labels) > 0 {
		has = ", has the labels " + strings.Join(labels, ",")
	}
	return &machine.Error{
		Code:    codeNoNode,
		Message: fmt.Sprintf("no node was there when it was due that runs %s%s and does not drain: start one, and retry it", j.Kind, has),
	}
}
