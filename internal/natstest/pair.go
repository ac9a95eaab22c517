package natstest

import (
	"bufio"
	"net"
	"sync"
)

// pair is one connection through a [Link]: the link's ends of the pipes to the
// client and to the server. Four goroutines serve it, and none of them waits for
// another: pipes have no buffer, so a client and a server that write to each
// other at once would block for ever.
//
//	client ──▶ fromClient ──▶ requests ──▶ toServer ──▶ server
//	client ◀── toClient ◀── answers ◀── fromServer ◀── server
type pair struct {
	link              *Link
	client, server    net.Conn
	requests, answers *outbox

	mu     sync.Mutex
	doomed map[string]Fault // by the subjects where answers are not to arrive
}

// fromClient takes what the client sends, also after a cut, so that the client
// never blocks.
func (p *pair) fromClient() {
	defer p.requests.close()
	r := bufio.NewReader(p.client)
	for {
		f, err := readFrame(r)
		if err != nil {
			return
		}
		p.requests.put(f)
	}
}

// toServer passes on what the client sent, as the link judges it.
func (p *pair) toServer() {
	defer p.cut()
	for {
		f, ok := p.requests.take()
		if !ok {
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
			p.requests.drain()
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
			p.answers.put(f)
		}
	}
}

// toClient passes on what the server sent, also after a cut, and hangs up.
func (p *pair) toClient() {
	defer p.link.forget(p)
	defer p.client.Close()
	for {
		f, ok := p.answers.take()
		if !ok {
			return
		}
		if _, err := p.client.Write(f.raw); err != nil {
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
	p.requests.discard()
	p.answers.close()
}

// freeze stops both directions, or lets them go on, without breaking anything.
func (p *pair) freeze(frozen bool) {
	p.requests.freeze(frozen)
	p.answers.freeze(frozen)
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
