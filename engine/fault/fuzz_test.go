package fault_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/engine/fault"
	"github.com/millrace/millrace/engine/machine"
)

// Whatever a record says, it is an error that can be looked at, and sent on.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"message":"a","code":"b","causes":[{"message":"c","depth":1,"type":"test.declined","data":{"card":"1"}}]}`))
	f.Add([]byte(`{"message":"a","causes":[{"message":"","type":"test.unruly","data":{}},{"message":"c","depth":9},{"message":"d","depth":-1}]}`))
	f.Add([]byte(`{"message":"a","causes":[{"message":"b","depth":1,"type":"test.busy","data":null},{"message":"c","depth":2,"type":"test.sold-out"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var stored machine.Error
		if json.Unmarshal(data, &stored) != nil {
			return
		}
		err := fault.Decode(stored)
		if err.Error() != stored.Message {
			t.Errorf("the message is %q, want %q", err, stored.Message)
		}
		var card *declined
		_ = errors.As(err, &card)
		_ = errors.Is(err, errSoldOut)
		once := fault.Encode(err)
		if again := fault.Encode(fault.Decode(once)); !cmp.Equal(once, again) {
			t.Errorf("sent on it changes: %s", cmp.Diff(once, again))
		}
	})
}
