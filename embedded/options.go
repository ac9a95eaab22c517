package embedded

import (
	"errors"
	"fmt"
	"log/slog"
)

// Sync says when the server brings what it has acknowledged to the disk.
type Sync string

const (
	// SyncDefault is every two minutes. What was acknowledged survives the death
	// of the process at any moment, but not a loss of power.
	SyncDefault Sync = "default"
	// SyncAlways is before each acknowledgement. It survives a loss of power and
	// costs most of the throughput.
	SyncAlways Sync = "always"
)

// Options configures a [Server]. The zero value of a field means its default.
type Options struct {
	// Dir is the folder for the data. It is required, and made if it does not
	// exist.
	Dir string

	// Listen is the address for connections over the network, such as
	// 127.0.0.1:4222. With port 0 the system chooses one, see [Server.URL].
	// Default: none; connections are made by [Server.Connect] only.
	Listen string

	// Sync is when acknowledged data is on disk. Default [SyncDefault].
	Sync Sync

	// Logger receives what the server warns of and what it fails at; what it
	// merely reports, and what it warns of while it starts, is logged at debug
	// level. Default slog.Default.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Sync == "" {
		o.Sync = SyncDefault
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// validate reports everything that is wrong with o, not just the first thing.
func (o Options) validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("no folder for the data: set Dir"))
	}
	if o.Listen != "" {
		_, _, err := splitListen(o.Listen)
		errs = append(errs, err)
	}
	if o.Sync != SyncDefault && o.Sync != SyncAlways {
		errs = append(errs, fmt.Errorf("sync %q is neither %q nor %q", o.Sync, SyncDefault, SyncAlways))
	}
	return errors.Join(errs...)
}
