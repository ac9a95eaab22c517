// Package e2e tests the binary: several processes on one machine, real faults,
// and clients that are not Millrace's own. It has no code but tests: what runs
// processes and does harm to them is in package cluster, and package oracle
// judges what came of it.
//
// Start reading at worker_test.go, which has the shortest stories. How much of the
// others is told is said in scenario_test.go; mix_test.go does everything at
// once, by a plan (plan_test.go) of verbs (verbs_test.go).
package e2e
