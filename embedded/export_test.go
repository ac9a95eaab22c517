package embedded

import "github.com/nats-io/nats-server/v2/server"

// JetStream returns how the server keeps its data.
func (s *Server) JetStream() *server.JetStreamConfig { return s.nats.JetStreamConfig() }
