package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// On a terminal the demo is drawn again in place, with colours, and leaves the
// cursor as it was.
func TestDemoOnTerminal(t *testing.T) {
	t.Parallel()
	screen, keyboard := openTerminal(t)
	cmd := exec.Command("millrace", "demo")
	cmd.Env = append(os.Environ(), "NO_COLOR=")
	cmd.Stdout, cmd.Stderr = keyboard, keyboard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	keyboard.Close()
	var shown bytes.Buffer
	_, _ = io.Copy(&shown, screen) // ends with an error when nobody has the other end
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, &shown)
	}
	for _, pattern := range []string{
		`\x1b\[\d+A\x1b\[J`,                      // over what was there
		`\x1b\[36m▸ running\x1b\[0m`,             // while they run
		`\d+ events sent, \d+ of \d+ jobs ended`, // while some are open
		`\x1b\[32m✓ succeeded\x1b\[0m +2 +\S+ +12.00 booked`,
		`\x1b\[\?25l(?s:.*)\x1b\[\?25h(?s:.*)Everything ended as it should`,
	} {
		if !regexp.MustCompile(pattern).Match(shown.Bytes()) {
			t.Errorf("no match for %s in\n%q", pattern, &shown)
		}
	}
}

// On a terminal the matrix of a broadcast is drawn again in place, and cleared for
// what is printed for good.
func TestMatrixOnTerminal(t *testing.T) {
	t.Parallel()
	screen, keyboard := openTerminal(t)
	m := newMatrix(&env{stdout: keyboard}, nil)
	m.colour = true
	m.show(broadcastOf(partOf("w1", "running"), partOf("w2", "waiting")))
	m.show(broadcastOf(partOf("w1", "succeeded"), partOf("w2", "running")))
	m.end(broadcastOf(partOf("w1", "succeeded"), partOf("w2", "succeeded")))
	keyboard.Close()
	var shown bytes.Buffer
	_, _ = io.Copy(&shown, screen) // ends with an error when nobody has the other end
	for _, pattern := range []string{
		`^NODE  STATE`,
		`w1 +\x1b\[36m▸ running\x1b\[0m`,
		`ended, 1 running\r\n\x1b\[5A\x1b\[JNODE`, // over what was there
		`w1 +\x1b\[32m✓ succeeded\x1b\[0m`,
		`1 of 2 parts ended, 1 succeeded, 1 running\r\n\x1b\[5A\x1b\[J$`,
	} {
		if !regexp.MustCompile(pattern).Match(shown.Bytes()) {
			t.Errorf("no match for %s in\n%q", pattern, &shown)
		}
	}
}

// openTerminal returns the two ends of a terminal of 100 × 24 characters.
func openTerminal(t *testing.T) (screen, keyboard *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	fd := int(screen.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100}); err != nil {
		t.Fatal(err)
	}
	keyboard, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return screen, keyboard
}
