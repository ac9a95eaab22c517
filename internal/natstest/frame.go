package natstest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"

	"github.com/nats-io/nats.go"
)

// frame is one operation of the NATS protocol as it goes over a connection.
// Only operations that carry a message have more than raw.
type frame struct {
	raw            []byte // all of it, line ends included
	subject, reply string
	header, data   []byte // parts of raw
}

// messages lists the operations that carry a message: how many arguments come
// before the optional reply subject, and how many sizes come after it.
var messages = map[string]struct{ before, sizes int }{
	"PUB":  {1, 1},
	"HPUB": {1, 2},
	"MSG":  {2, 1},
	"HMSG": {2, 2},
}

// readFrame reads the next operation of a client or a server.
func readFrame(r *bufio.Reader) (frame, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return frame{}, err
	}
	f := frame{raw: line}
	words := bytes.Fields(line)
	if len(words) == 0 {
		return f, nil
	}
	layout, ok := messages[string(words[0])]
	if !ok {
		return f, nil
	}
	args := words[1:]
	extra := len(args) - layout.before - layout.sizes
	if extra < 0 || extra > 1 {
		return f, fmt.Errorf("natstest: read %q: wrong number of arguments", line)
	}
	f.subject = string(args[0])
	if extra == 1 {
		f.reply = string(args[layout.before])
	}
	return f, f.readPayload(r, args[layout.before+extra:])
}

// readPayload reads what follows the line of f. The last of sizes is that of
// header and data together, the one before it, if any, that of the header.
func (f *frame) readPayload(r io.Reader, sizes [][]byte) error {
	total, err := strconv.Atoi(string(sizes[len(sizes)-1]))
	if err != nil {
		return fmt.Errorf("natstest: read size: %w", err)
	}
	head := 0
	if len(sizes) == 2 {
		if head, err = strconv.Atoi(string(sizes[0])); err != nil {
			return fmt.Errorf("natstest: read size: %w", err)
		}
	}
	if head < 0 || total < head {
		return fmt.Errorf("natstest: read sizes %d and %d: impossible", head, total)
	}
	line := len(f.raw)
	f.raw = append(f.raw, make([]byte, total+len("\r\n"))...)
	if _, err := io.ReadFull(r, f.raw[line:]); err != nil {
		return err
	}
	f.header, f.data = f.raw[line:line+head], f.raw[line+head:line+total]
	return nil
}

// message returns f as the client library sends it.
func (f *frame) message() (*nats.Msg, error) {
	m := &nats.Msg{Subject: f.subject, Reply: f.reply, Data: f.data}
	if len(f.header) == 0 {
		return m, nil
	}
	h, err := nats.DecodeHeadersMsg(f.header)
	if err != nil {
		return nil, fmt.Errorf("natstest: decode header: %w", err)
	}
	m.Header = h
	return m, nil
}
