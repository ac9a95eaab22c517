package natstest

import (
	"bufio"
	"io"
	"net"
	"sync"
)

// pair is one connection through a [Link]: the link's ends of the pipes to the
// client and to the server. Three goroutines serve it, and none of them waits
// for another: pipes have no buffer, so a client and a server that write to each
// other at once would block for ever.
//
//	client ──▶ toServer ──▶ server ──▶ fromServer ──▶ answers ──▶ toClient ──▶ client
type pair struct {
	link           *Link
	client, server net.Conn
	answers        *outbox

	mu     sync.Mutex
	doomed map[string]Fault // by the subjects where answers are not to arrive
}

// toServer passes on what the client sends, as the link judges it. After the
// last write that may pass, it goes on reading, so that the client never blocks.
func (p *pair) toServer() {
	defer p.link.forget(p)
	defer p.cut()
	r := bufio.NewReader(p.client)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		fault := p.link.judge(&f)
		switch {
		case fault == Hold:
			continue
		case fault.before():
			p.strike(fault) // so the write below fails
		case fault != Pass:
			p.doom(f.reply, fault)
		}
		if _, err := p.server.Write(f.raw); err != nil || fault.after() {
			_, _ = io.Copy(io.Discard, r)
			return
		}
	}
}

// fromServer takes what the server sends, but for the answers that are lost.
func (p *pair) fromServer() {
	defer p.cut()
	r := bufio.NewReader(p.server)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		switch fault := p.fate(f.subject); {
		case fault.after():
			p.strike(fault)
			return
		case fault != LoseAnswer:
			p.answers.put(f.raw)
		}
	}
}

// toClient passes on what the server sent, also after a cut, and hangs up.
func (p *pair) toClient() {
	defer p.client.Close()
	for {
		raw, ok := p.answers.take()
		if !ok {
			return
		}
		if _, err := p.client.Write(raw); err != nil {
			p.cut()
			return
		}
	}
}

// strike cuts the connection, or all connections of the link.
func (p *pair) strike(fault Fault) {
	if fault.down() {
		p.link.Down()
	}
	p.cut()
}

// cut ends the connection: nothing more reaches the server, and the client gets
// what the server had sent until now. Cutting twice does no harm.
func (p *pair) cut() {
	p.server.Close()
	p.answers.close()
}

// doom makes fault the fate of the answer that goes to reply.
func (p *pair) doom(reply string, fault Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doomed == nil {
		p.doomed = map[string]Fault{}
	}
	p.doomed[reply] = fault
}

// fate returns what happens to a message to subject, once.
func (p *pair) fate(subject string) Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault := p.doomed[subject]
	delete(p.doomed, subject)
	return fault
}

// outbox is a queue without a bound.
type outbox struct {
	mu      sync.Mutex
	changed *sync.Cond
	frames  [][]byte
	closed  bool
}

func newOutbox() *outbox {
	o := &outbox{}
	o.changed = sync.NewCond(&o.mu)
	return o
}

// put adds a frame, unless the outbox is closed.
func (o *outbox) put(raw []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.closed {
		o.frames = append(o.frames, raw)
		o.changed.Signal()
	}
}

// take waits for a frame. It returns false when the outbox is closed and empty.
func (o *outbox) take() ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.frames) == 0 && !o.closed {
		o.changed.Wait()
	}
	if len(o.frames) == 0 {
		return nil, false
	}
	raw := o.frames[0]
	o.frames = o.frames[1:]
	return raw, true
}

// close lets take return what is there, and then nothing.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.changed.Signal()
}
