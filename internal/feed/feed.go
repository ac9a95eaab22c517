// Package feed hears core messages: those that nobody stores.
package feed

import "github.com/nats-io/nats.go"

// Hear calls f with each message on a subject, one after the other, until stop is
// called, which waits for the last call. What is published while the connection is
// away is lost.
func Hear(nc *nats.Conn, subject string, f func(*nats.Msg)) (stop func(), err error) {
	sub, err := nc.Subscribe(subject, f)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(ended) })
	return func() {
		if err := sub.Unsubscribe(); err == nil { // otherwise it was closed along with nc
			<-ended
		}
	}, nil
}
