package spec_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/engine/spec"
)

// How much there may be in an input.
func TestInputLimits(t *testing.T) {
	t.Parallel()
	for input, want := range map[string]string{
		strings.Repeat("[", 100) + strings.Repeat("]", 100):                       "",
		strings.Repeat("[", 102) + strings.Repeat("]", 102):                       "input is nested more than 100 deep: make it flatter",
		`"` + strings.Repeat("a", 32766) + `"`:                                    "",
		`"` + strings.Repeat("a", 32767) + `"`:                                    "input has 32769 bytes: use up to 32768, and pass references",
		`["` + strings.Repeat("${tick.number}", 100) + `"]`:                       "",
		`["` + strings.Repeat("${tick.number}", 100) + `", "${tick.number + 1}"]`: "input has 101 expressions: use up to 100",
	} {
		s := spec.Schedule{Name: "a", Every: spec.Duration(time.Second), Job: "a.x", Input: json.RawMessage(input)}
		if want != "" {
			want = `schedule "a": ` + want
		}
		if err := s.Validate(); (want == "") != (err == nil) || err != nil && err.Error() != want {
			t.Errorf("%.80s…: got %v, want %s", input, err, want)
		}
	}
}

// BenchmarkRender is what the input of a tick costs.
func BenchmarkRender(b *testing.B) {
	for name, input := range map[string]string{
		"plain":      `{"kind":"full"}`,
		"variables":  `{"day":"${tick.date}","at":"${tick.time}","text":"report ${tick.number}"}`,
		"expression": `{"from":"${tick.time - duration('24h')}"}`,
	} {
		s := spec.Schedule{Name: "a", Every: spec.Duration(time.Second), Job: "a.x", Zone: "Europe/Berlin", Input: json.RawMessage(input)}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			template, err := s.Template()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := template.Render(time.UnixMilli(1_800_000_000_000), 7); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/compile", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Template(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
