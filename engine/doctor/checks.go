package doctor

import "fmt"

// check is one question about what was seen.
type check struct {
	name  string
	needs []*sight
	find  func(*chart) []Finding // what is to be said; Check is filled in
	good  string                 // what is said if there is nothing
}

// checks are in the order in which their findings are returned.
var checks = []check{
	{"connection", []*sight{seeConnection}, checkConnection, ""},
	{"server", []*sight{seeAccount}, checkServer, ""},
	{"sync", []*sight{seeSync}, checkSync, ""},
	{"clock", []*sight{seeClock}, checkClock, ""},
	{"permissions", []*sight{seeRoles}, checkRoles, "this user may do everything"},
	{"namespace", []*sight{seeAssets}, checkNamespace, "all streams are there"},
	{"versions", []*sight{seeAssets}, checkVersions, "all streams are of this build's version"},
	{"configuration", []*sight{seeAssets}, checkConfiguration, "all streams are as they were made"},
	{"replicas", []*sight{seeAssets}, checkReplicas, ""},
	{"storage", []*sight{seeLimits}, checkStorage, ""},
	{"records", []*sight{seeLimits}, checkRecords, ""},
	{"owner", []*sight{seeNodes}, checkOwner, ""},
	{"drained", []*sight{seeNodes}, checkDrained, "no node is draining"},
	{"scan", []*sight{seeJobs}, checkScan, ""},
	{"workers", []*sight{seeJobs}, checkWorkers, "every queue with jobs that wait has a worker"},
	{"kinds", []*sight{seeJobs}, checkKinds, "every kind with jobs that wait has a handler"},
	{"consumers", []*sight{seeJobs, seeBacklogs}, checkConsumers, "every queue with a worker has a consumer"},
	{"redelivered", []*sight{seeJobs, seeBacklogs}, checkRedelivered, "no item comes back again and again"},
	{"offline", []*sight{seeGone}, checkOffline, "no job runs on a node that is not there"},
	{"items", []*sight{seeStuck}, checkItems, "every job that is ready is offered to workers"},
	{"pinned", []*sight{seeJobs}, checkPinned, "every node that jobs wait for is there"},
	{"waiting", []*sight{seeParts}, checkWaiting, "every job that waits for its parts has some that go on"},
	{"timers", []*sight{seeTimers}, checkTimers, "no timer is overdue"},
	{"schedules", []*sight{seeSchedules}, checkSchedules, "every schedule can be used"},
	{"halted", []*sight{seeSchedules}, checkHalted, "no schedule has halted"},
	{"ticks", []*sight{seeSchedules}, checkTicks, "no tick of a schedule is overdue"},
	{"targets", []*sight{seeSchedules}, checkTargets, "every kind that a schedule wants has a handler"},
	{"readable", []*sight{seeJobs}, checkReadable, "this build can read every job"},
	{"dead events", []*sight{seeAssets}, checkDeadEvents, "every event could be mapped"},
}

// examine makes all checks for which enough was seen.
func (c *chart) examine() (found []Finding) {
	for _, check := range checks {
		if !c.sees(check.needs...) {
			continue // a finding says what was not
		}
		findings := check.find(c)
		if len(findings) == 0 {
			findings = []Finding{{Level: Fine, Text: check.good}}
		}
		for _, f := range findings {
			f.Check = check.name
			found = append(found, f)
		}
	}
	return found
}

func wrong(remedy, format string, args ...any) Finding {
	return Finding{Level: Wrong, Text: fmt.Sprintf(format, args...), Remedy: remedy}
}

func warning(remedy, format string, args ...any) Finding {
	return Finding{Level: Warning, Text: fmt.Sprintf(format, args...), Remedy: remedy}
}

func fine(format string, args ...any) []Finding {
	return []Finding{{Level: Fine, Text: fmt.Sprintf(format, args...)}}
}
