package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
)

// ObjectStore reads JetStream Object Stores over a connection.
type ObjectStore struct{ Conn *nats.Conn }

var _ Source = ObjectStore{}

// questionTimeout bounds a question to JetStream, which does not answer those
// who may not ask.
const questionTimeout = 5 * time.Second

// Stat asks the store about an object.
func (s ObjectStore) Stat(ctx context.Context, r Ref) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	store, err := s.bucket(ctx, r)
	if err != nil {
		return Info{}, err
	}
	info, err := store.GetInfo(ctx, r.Key)
	if err != nil {
		return Info{}, explain(r, err)
	}
	if info.Size > math.MaxInt64 {
		return Info{}, nex.Errorf(nex.Invalid, "%s announces an impossible size", r)
	}
	return Info{Size: int64(info.Size), SHA256: nex.ObjectDigest(info.Digest)}, nil
}

// Open reads an object until ctx ends; the client library checks its digest
// at the end.
func (s ObjectStore) Open(ctx context.Context, r Ref) (io.ReadCloser, error) {
	store, err := s.bucket(ctx, r)
	if err != nil {
		return nil, err
	}
	object, err := store.Get(impatient{ctx}, r.Key)
	if err != nil {
		return nil, explain(r, err)
	}
	return object, nil
}

// impatient is a context whose deadline is always near. The client library's
// reader waits for the deadline when the server has nothing to send, and looks
// only then whether ctx was cancelled. Not cancelled, it goes on.
type impatient struct{ context.Context }

func (c impatient) Deadline() (time.Time, bool) {
	near := time.Now().Add(time.Second)
	if end, ok := c.Context.Deadline(); ok && end.Before(near) {
		return end, true
	}
	return near, true
}

func (s ObjectStore) bucket(ctx context.Context, r Ref) (jetstream.ObjectStore, error) {
	js, err := jetstream.New(s.Conn)
	if r.Domain != "" {
		js, err = jetstream.NewWithDomain(s.Conn, r.Domain)
	}
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	store, err := js.ObjectStore(ctx, r.Bucket)
	if err != nil {
		return nil, explain(r, err)
	}
	return store, nil
}

// explain gives the store's errors exactly the texts of Nex 0.2.7, which opened
// the bucket's stream itself, and a code. Clients compare these texts.
func explain(r Ref, err error) error {
	switch {
	case errors.Is(err, jetstream.ErrBucketNotFound), errors.Is(err, jetstream.ErrStreamNotFound):
		return nex.Errorf(nex.NotFound, "nats: stream not found")
	case errors.Is(err, jetstream.ErrObjectNotFound):
		return nex.Errorf(nex.NotFound, "nats: object not found")
	case errors.Is(err, jetstream.ErrInvalidStoreName):
		return nex.Errorf(nex.Invalid, "nats: invalid object-store name")
	case errors.Is(err, context.DeadlineExceeded):
		return nex.Errorf(nex.Unavailable, "no answer about %s: JetStream is away, or does not let this node read the bucket", r)
	}
	return fmt.Errorf("fetch %s: %w", r, err)
}
