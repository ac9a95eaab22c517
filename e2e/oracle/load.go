package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/e2e/ledger"
)

// The files of a run that was kept.
const (
	LedgerFile = "ledger.jsonl"
	jobsFile   = "jobs.jsonl"
	runFile    = "run.json"
)

// Load reads a run that [Run.Save] and a [ledger.Writer] have left in dir. One
// that broke off may have no jobs and no run.json yet: then it has the defaults.
func Load(dir string) (Run, error) {
	var r Run
	text, err := os.ReadFile(filepath.Join(dir, runFile))
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil && !os.IsNotExist(err) {
		return Run{}, fmt.Errorf("oracle: load %s: %w", runFile, err)
	}
	if r.Ledger, err = ledger.Load(filepath.Join(dir, LedgerFile)); err != nil {
		return Run{}, fmt.Errorf("oracle: load %s: %w", dir, err)
	}
	text, err = os.ReadFile(filepath.Join(dir, jobsFile))
	if r.Unlisted = os.IsNotExist(err); err != nil && !r.Unlisted {
		return Run{}, fmt.Errorf("oracle: load %s: %w", jobsFile, err)
	}
	if r.Jobs, err = DecodeJobs(bytes.NewReader(text)); err != nil {
		return Run{}, fmt.Errorf("oracle: load %s: %w", jobsFile, err)
	}
	return r, nil
}

// Save writes the settings of the run, and its jobs if they are listed, to dir,
// where its ledger is already.
func (r Run) Save(dir string) error {
	settings, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("oracle: encode %s: %w", runFile, err)
	}
	var jobs bytes.Buffer
	encoder := json.NewEncoder(&jobs)
	for _, j := range r.Jobs {
		if err := encoder.Encode(j); err != nil {
			return fmt.Errorf("oracle: encode job %s: %w", j.ID, err)
		}
	}
	files := map[string][]byte{runFile: settings, jobsFile: jobs.Bytes()}
	if r.Unlisted {
		delete(files, jobsFile)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return fmt.Errorf("oracle: save: %w", err)
		}
	}
	return nil
}
