// Package e2e tests the binary: several processes on one machine, real faults,
// and clients that are not Millrace's own. It has no code but tests.
//
// Start reading at harness_test.go, which builds the binary and starts
// processes of it.
package e2e
