package natstest

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadFrame(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in, subject, reply, header, data string
		bad                              bool
	}{
		{in: "PING\r\n"},
		{in: "\r\n"},
		{in: "SUB a.b 1\r\n"},
		{in: "PUB a.b 2\r\nhi\r\n", subject: "a.b", data: "hi"},
		{in: "PUB a.b re.ply 2\r\nhi\r\n", subject: "a.b", reply: "re.ply", data: "hi"},
		{in: "PUB a.b 0\r\n\r\n", subject: "a.b"},
		{in: "HPUB a.b 3 5\r\nheahi\r\n", subject: "a.b", header: "hea", data: "hi"},
		{in: "HPUB a.b re 3 5\r\nheahi\r\n", subject: "a.b", reply: "re", header: "hea", data: "hi"},
		{in: "MSG a.b 9 2\r\nhi\r\n", subject: "a.b", data: "hi"},
		{in: "MSG a.b 9 re 2\r\nhi\r\n", subject: "a.b", reply: "re", data: "hi"},
		{in: "HMSG a.b 9 re 3 5\r\nheahi\r\n", subject: "a.b", reply: "re", header: "hea", data: "hi"},
		{in: "PUB a.b\r\n", bad: true},
		{in: "PUB a b c d\r\n", bad: true},
		{in: "PUB a -1\r\n", bad: true},
		{in: "HPUB a 5 3\r\nheahi\r\n", bad: true},
		{in: "PUB a 3\r\nhi", bad: true},
	}
	for _, test := range tests {
		f, err := readFrame(bufio.NewReader(bytes.NewBufferString(test.in)))
		if (err != nil) != test.bad {
			t.Errorf("%q: got error %v", test.in, err)
		}
		if test.bad {
			continue
		}
		got := []string{string(f.raw), f.subject, f.reply, string(f.header), string(f.data)}
		want := []string{test.in, test.subject, test.reply, test.header, test.data}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", test.in, d)
		}
	}
}
