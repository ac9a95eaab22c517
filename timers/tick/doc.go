// Package tick is the work of a schedule as a pure function: which of its ticks
// become jobs, which are declined, and which job has its turn.
//
// A [Definition] is what people want, a [Cursor] what the engine has done about it so
// far. [Definition.Advance] is a pure function from both, and from what is known of
// the jobs ([Facts]), to the next cursor and to what is to be done ([Act]). Nothing
// here does I/O or reads a clock.
//
//	definition, cursor, facts ──▶ Advance ──▶ the next cursor, acts
//	                                 act  ──▶ Definition.Job ──▶ the record to create
//
// # What the caller sees to
//
// The cursor is stored by its revision, so of two owners one gets its way. A step that
// is [Step.Plain] is carried out before its cursor is stored: its one job follows from
// the cursor that is stored already, so whoever repeats it creates the same record.
// Every other step depends on the moment. Its cursor is stored first, and names its
// acts in [Cursor.Doing]; then they are carried out. Whoever reads a cursor carries
// out what it is doing before anything else: acts are idempotent. [Definition.Advance]
// takes it for granted that this was done, and clears them.
//
// Facts are read from the leader, after the acts of the cursor were carried out:
//
//   - [Facts.Ended] has jobs of [Definition.Watch] whose records have ended or are gone.
//   - [Facts.Wants] has jobs whose records wait for a turn. One that was admitted or
//     dismissed is not mentioned again, unless its record was read since and waits.
//   - [Facts.Now] is a lower bound of the server's time.
//
// A definition that is gone has no steps: its cursor is deleted, and whoever waits for
// a turn is declined as [Definition.Declines] of nil says.
//
// # What is exact
//
// Each tick has one record, or lies in one roll-up, whoever dies when. There are never
// more jobs in [Cursor.Holders] than the policy allows, and no job of a schedule with
// a limit goes on that is not there, apart from those that were made while there was
// no limit, or by an earlier life of the schedule.
//
// What is not promised: that a tick which was due before its schedule was deleted has a
// record. Of edits only the last is known. So ticks that were due between two of them
// which nobody had seen may have no record, if the second resumed the schedule or
// changed its calendar; and what was due before such an edit, and nobody knew, is
// counted by the new calendar.
//
// Start reading at [Definition.Advance], then at [Cursor].
package tick
