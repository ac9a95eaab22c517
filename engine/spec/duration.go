package spec

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written for people: as time.Duration is,
// such as 90m or 1h30m, or in days, such as 14d.
type Duration time.Duration

const day = 24 * time.Hour

// longest bounds a duration, so that sums of times stay what they should be.
const longest = 100 * 365 * Duration(day)

var errDuration = errors.New("use a duration such as 24h or 14d")

// ParseDuration reads a duration.
func ParseDuration(text string) (Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int64
		n, err = strconv.ParseInt(days, 10, 32)
		d = time.Duration(max(min(n, int64(time.Duration(longest)/day)+1), -1)) * day
	}
	if err != nil || Duration(d) > longest || Duration(d) < -longest {
		return 0, errDuration
	}
	return Duration(d), nil
}

// String returns the shortest form that [ParseDuration] reads.
func (d Duration) String() string {
	if t := time.Duration(d); t >= 2*day && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText writes the duration as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration as [ParseDuration] does.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}
