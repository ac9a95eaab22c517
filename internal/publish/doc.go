// Package publish sends JetStream messages without waiting for each answer.
//
// A [Publisher] owns one inbox. Every message leaves with a reply subject of
// that inbox, and one subscription hands each answer to whoever sent the
// message. That is cheaper than what the NATS client does for asynchronous
// publishes, and it adds what Millrace needs: a broken connection fails
// everything in flight at once, and an error says whether the message may have
// been stored.
//
//	Publish ──┐                     ┌── answer
//	          ├─▶ window ─▶ server ─┤
//	PublishAsync                    └── time-out, broken connection
//
// Start reading at [Publisher.PublishAsync].
//
// # What an error means
//
//   - [ErrUnsent]: the message did not leave this process. Nothing is stored.
//   - [ErrUnknown]: it left, and no answer came. It may be stored, now or later.
//   - anything else, such as a *jetstream.APIError: the server refused it, or
//     the message cannot be sent at all. Nothing is stored.
package publish
