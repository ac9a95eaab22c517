package zone_test

import (
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/zone"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{"": "UTC", "UTC": "UTC", "Europe/Berlin": "Europe/Berlin"} {
		first, err := zone.Load(name)
		if err != nil || first.String() != want {
			t.Errorf("zone %q is %v, %v; want %s", name, first, err, want)
		}
		if again, err := zone.Load(name); err != nil || again != first {
			t.Errorf("zone %q was read twice: %v", name, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Local":         "differs between machines",
		"Europe/Berlni": `import _ "time/tzdata"`,
		"../etc/passwd": "is not in the time zone data",
	} {
		if got, err := zone.Load(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("zone %q is %v, %v; want an error with %q", name, got, err, want)
		}
	}
}
