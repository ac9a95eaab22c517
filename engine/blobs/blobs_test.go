package blobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/millrace/millrace/engine/blobs"
	"github.com/millrace/millrace/internal/natstest"
	"github.com/millrace/millrace/internal/publish"
	"github.com/millrace/millrace/streams"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// The server's access-time ticker runs for as long as the process does.
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
	)
}

const (
	ns  = streams.DefaultNamespace
	job = "mail.a=1"
)

var at = time.UnixMilli(1700000000123)

// publisher connects to a server.
func publisher(t *testing.T, nc *nats.Conn) *publish.Publisher {
	t.Helper()
	pub, err := publish.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pub.Close)
	return pub
}

// opened returns the object store of a new namespace.
func opened(t *testing.T, srv *server.Server, opts ...nats.Option) (*blobs.Blobs, *publish.Publisher) {
	t.Helper()
	pub := publisher(t, natstest.Connect(t, srv, opts...))
	if _, err := streams.Ensure(t.Context(), ns, pub, streams.Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	return blobs.Open(pub, ns), pub
}

// value returns n bytes that differ from chunk to chunk.
func value(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i>>17 + i)
	}
	return data
}

// messages returns how many messages the object store has.
func messages(t *testing.T, pub *publish.Publisher) uint64 {
	t.Helper()
	js, err := pub.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), ns.BlobStream())
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().State.Msgs
}

// listed returns the blobs that are listed.
func listed(t *testing.T, b *blobs.Blobs) (list []string) {
	t.Helper()
	if err := b.List(t.Context(), func(blob string) error { list = append(list, blob); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// What is put is got, by this package and by the NATS client, and what is deleted
// leaves nothing.
func TestPut(t *testing.T) {
	t.Parallel()
	b, pub := opened(t, natstest.Start(t, t.TempDir()))
	js, err := pub.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := js.ObjectStore(t.Context(), ns.Bucket(streams.Blobs))
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 128 << 10, 128<<10 + 1, 10 << 20} {
		want, name := value(size), blobs.Name(job, at)
		if err := b.Put(t.Context(), name, want); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Get(t.Context(), name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %d others, %v", size, len(got), err)
		}
		if got, err := objects.GetBytes(t.Context(), name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes: the NATS client got %d others, %v", size, len(got), err)
		}
		if got := listed(t, b); !slices.Equal(got, []string{name}) {
			t.Errorf("%d bytes: listed %v, want %s", size, got, name)
		}
		for range 2 {
			if err := b.Delete(t.Context(), name); err != nil {
				t.Error(err)
			}
		}
		if _, err := b.Get(t.Context(), name); !errors.Is(err, blobs.ErrMissing) {
			t.Errorf("%d bytes, deleted: got %v, want ErrMissing", size, err)
		}
		if n := messages(t, pub); n != 0 {
			t.Errorf("%d bytes, deleted: %d messages are left", size, n)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	a, b := blobs.Name(job, at), blobs.Name(job, at)
	if a == b {
		t.Errorf("two blobs are named %s", a)
	}
	if owner, made, ok := blobs.Owner(a); !ok || owner != job || !made.Equal(at) {
		t.Errorf("the owner of %s is %s, made %v, %v", a, owner, made, ok)
	}
	for _, bad := range []string{"", "x", "mail.1", "mail.1.x", "mail.1.x-y", "mail.1.1700", "mail.1700-x", "a.b.c.1700-x", "mail..1700-x", "mail.*.1-x"} {
		if owner, _, ok := blobs.Owner(bad); ok {
			t.Errorf("the owner of %q is %q", bad, owner)
		}
	}
}

// Whatever name there is, its owner is a job, and is asked for by no other name.
func FuzzOwner(f *testing.F) {
	f.Add(blobs.Name(job, at))
	f.Add("mail.1.-1-x")
	f.Fuzz(func(t *testing.T, blob string) {
		owner, _, ok := blobs.Owner(blob)
		if ok && !strings.HasPrefix(blob, owner+".") {
			t.Errorf("the owner of %q is %q", blob, owner)
		}
	})
}

// A blob of which something is gone, or to which something was added, is not got.
func TestGetBroken(t *testing.T) {
	for name, damage := range map[string]func(ctx context.Context, s jetstream.Stream, js jetstream.JetStream, subject string) error{
		"a chunk is gone": func(ctx context.Context, s jetstream.Stream, _ jetstream.JetStream, _ string) error {
			return s.DeleteMsg(ctx, 2)
		},
		"a chunk is another": func(ctx context.Context, s jetstream.Stream, js jetstream.JetStream, subject string) error {
			if err := s.DeleteMsg(ctx, 3); err != nil {
				return err
			}
			_, err := js.Publish(ctx, subject, make([]byte, 300<<10-256<<10))
			return err
		},
		"there is more": func(ctx context.Context, _ jetstream.Stream, js jetstream.JetStream, subject string) error {
			_, err := js.Publish(ctx, subject, []byte("?"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
				b, pub := opened(t, srv)
				blob := blobs.Name(job, at)
				if err := b.Put(t.Context(), blob, value(300<<10)); err != nil {
					t.Fatal(err)
				}
				js, err := pub.JetStream()
				if err != nil {
					t.Fatal(err)
				}
				s, err := js.Stream(t.Context(), ns.BlobStream())
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(t.Context(), s, js, "$O.mr_default_blobs.C."+blob); err != nil {
					t.Fatal(err)
				}
				if got, err := b.Get(t.Context(), blob); !errors.Is(err, blobs.ErrBroken) {
					t.Errorf("got %d bytes, %v, want ErrBroken", len(got), err)
				}
			})
		})
	}
}

// Whatever write fails or goes unanswered, there is no blob or a whole one, and what
// is left is listed and can be deleted.
func TestFaults(t *testing.T) {
	for _, fault := range []natstest.Fault{natstest.CutBefore, natstest.CutAfter, natstest.DownBefore, natstest.DownAfter, natstest.LoseAnswer} {
		more := true
		for n := 1; more; n++ {
			t.Run(fmt.Sprint(fault, " ", n), func(t *testing.T) {
				natstest.Bubble(t, func(t *testing.T, srv *server.Server) {
					b, pub := opened(t, srv)
					link := natstest.NewLink(t, srv, func(w natstest.Write) natstest.Fault {
						if w.Number == n {
							return fault
						}
						return natstest.Pass
					}, "$O.>")
					mine := blobs.Open(publisher(t, link.Connect(t)), ns)
					blob := blobs.Name(job, at)
					err := mine.Put(t.Context(), blob, value(300<<10))
					synctest.Wait() // for what is under way
					more = len(link.Writes()) >= n
					if (err != nil) != more {
						t.Errorf("put: %v", err)
					}
					got, err := b.Get(t.Context(), blob)
					if err == nil && !bytes.Equal(got, value(300<<10)) || err != nil && !errors.Is(err, blobs.ErrMissing) {
						t.Errorf("got %d bytes, %v", len(got), err)
					}
					if got := listed(t, b); len(got) > 1 || len(got) == 0 && messages(t, pub) > 0 {
						t.Errorf("listed %v of %d messages", got, messages(t, pub))
					}
					if err := b.Delete(t.Context(), blob); err != nil || messages(t, pub) > 0 {
						t.Errorf("deleted: %v, %d messages are left", err, messages(t, pub))
					}
				})
			})
		}
	}
}

// Who may not use the object store is told so, in one line.
func TestDenied(t *testing.T) {
	natstest.Bubble(t, func(t *testing.T, _ *server.Server) {
		srv := withUsers(t, []*server.User{{Username: "admin", Password: "x"}, {Username: "app", Password: "x", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$O.>", "$JS.API.DIRECT.GET.OBJ_mr_default_blobs"}},
		}}})
		b, _ := opened(t, srv, nats.UserInfo("admin", "x"))
		blob := blobs.Name(job, at)
		if err := b.Put(t.Context(), blob, value(10)); err != nil {
			t.Fatal(err)
		}
		theirs := blobs.Open(publisher(t, natstest.Connect(t, srv, nats.UserInfo("app", "x"))), ns)
		errPut := theirs.Put(t.Context(), blobs.Name(job, at), value(10))
		_, errGet := theirs.Get(t.Context(), blob)
		for _, err := range []error{errPut, errGet} {
			if !errors.Is(err, blobs.ErrDenied) || errors.Is(err, publish.ErrUnknown) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want ErrDenied", err)
			}
		}
	})
}

// withUsers runs a server that knows some users.
func withUsers(t *testing.T, users []*server.User) *server.Server {
	t.Helper()
	srv, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, NoLog: true, NoSigs: true, StoreDir: t.TempDir(), Users: users})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return srv
}
