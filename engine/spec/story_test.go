package spec_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/millrace/millrace/engine/spec"
)

// TestParse reads the files in testdata/parse: what is accepted, and the exact
// words in which the rest is refused.
func TestParse(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/parse", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			docs, err := spec.Parse("f.yaml", []byte(d.Input))
			if err != nil {
				return err.Error()
			}
			var out strings.Builder
			for _, doc := range docs {
				data, err := json.Marshal(doc)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&out, "%s %s\n", doc.Key(), data)
			}
			return out.String()
		})
	})
}

// TestMap plays the stories in testdata/map: a trigger, then what events do.
func TestMap(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/map", func(t *testing.T, path string) {
		var mapping *spec.Mapping
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "trigger":
				trigger := spec.Trigger{Name: "t", Subject: "orders.>", Job: "order.fulfil"}
				for line := range strings.Lines(d.Input) {
					field, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
					*map[string]*string{"when": &trigger.When, "id": &trigger.ID, "input": &trigger.Input}[field] = text
				}
				var err error
				if mapping, err = spec.Compile(trigger); err != nil {
					return err.Error()
				}
				return ""
			case "event":
				return mapStory(mapping, d)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func mapStory(m *spec.Mapping, d *datadriven.TestData) string {
	e := spec.Event{
		Subject:  "orders.created",
		Data:     []byte(d.Input),
		Header:   map[string][]string{},
		Time:     time.Date(2026, 3, 1, 12, 0, 0, 5e8, time.UTC),
		Sequence: 7,
	}
	for _, arg := range d.CmdArgs {
		switch arg.Key {
		case "bytes":
			fmt.Sscanf(arg.Vals[0], "%x", &e.Data)
		default:
			e.Header[arg.Key] = arg.Vals
		}
	}
	out, err := m.Map(e)
	switch {
	case err != nil:
		return "error: " + err.Error()
	case out.Skip:
		return "skip"
	case out.ID == "":
		return fmt.Sprintf("input=%s", out.Input)
	}
	return fmt.Sprintf("id=%s input=%s", out.ID, out.Input)
}

// TestRender plays the stories in testdata/render: the input of a schedule, and what
// the jobs of its ticks are given.
func TestRender(t *testing.T) {
	t.Parallel()
	datadriven.Walk(t, "testdata/render", func(t *testing.T, path string) {
		var template *spec.Template
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "input":
				s := spec.Schedule{Name: "nightly", Every: spec.Duration(time.Hour), Job: "report.build", Input: json.RawMessage(d.Input)}
				var err error
				if template, err = s.Template(); err != nil {
					return err.Error()
				}
				return ""
			case "tick":
				var number int64
				d.ScanArgs(t, "number", &number)
				at := time.Date(2027, 3, 28, 3, 0, 0, 5e8, time.FixedZone("CEST", 7200))
				out, err := template.Render(at, number)
				if err != nil {
					return "error: " + err.Error()
				}
				return string(out)
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}
