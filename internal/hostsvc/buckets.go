package hostsvc

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"nex"
)

const (
	// streamCreateFailed is the server's JSStreamCreateErrF: it could not make
	// the store of a stream.
	streamCreateFailed = 10049
	// maxCreateWait is the longest pause between two tries to make a bucket.
	maxCreateWait = 200 * time.Millisecond
)

// jetStream returns JetStream on the session's connection.
func (s *Session) jetStream(ctx context.Context) (jetstream.JetStream, error) {
	nc, err := connected(ctx, s.conn)
	if err != nil {
		return nil, err
	}
	return jetstream.New(nc)
}

// openKeys finds or makes the session's key-value bucket.
func (s *Session) openKeys(ctx context.Context) (jetstream.KeyValue, error) {
	js, err := s.jetStream(ctx)
	if err != nil {
		return nil, err
	}
	cfg, name := s.server.cfg.KV, s.server.keys.name(s.tenant)
	return find(ctx, cfg, name, func() (jetstream.KeyValue, error) { return js.KeyValue(ctx, name) }, func() (jetstream.KeyValue, error) {
		return js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: name, Description: cfg.description(s.tenant), MaxBytes: cfg.MaxBytes, Storage: cfg.storage(),
			Replicas: cfg.Replicas, TTL: cfg.TTL, History: uint8(cfg.History),
		})
	})
}

// openObjects finds or makes the session's object store.
func (s *Session) openObjects(ctx context.Context) (*objects, error) {
	js, err := s.jetStream(ctx)
	if err != nil {
		return nil, err
	}
	cfg, name := s.server.cfg.ObjectStore, s.server.objects.name(s.tenant)
	store, err := find(ctx, cfg, name, func() (jetstream.ObjectStore, error) { return js.ObjectStore(ctx, name) }, func() (jetstream.ObjectStore, error) {
		return js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
			Bucket: name, Description: cfg.description(s.tenant), MaxBytes: cfg.MaxBytes, Storage: cfg.storage(),
			Replicas: cfg.Replicas, TTL: cfg.TTL,
		})
	})
	if err != nil {
		return nil, err
	}
	chunks, err := js.Conn().JetStream()
	return &objects{ObjectStore: store, js: js, chunks: chunks, bucket: name}, err
}

// find looks for a bucket, and makes it if it is not there. Whoever makes it at
// the same time is welcome to: the bucket of the first is everybody's.
func find[B any](ctx context.Context, cfg Buckets, name string, look, create func() (B, error)) (B, error) {
	b, err := look()
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return b, err
	}
	if cfg.NoProvision {
		return b, nex.Errorf(nex.Unavailable, "there is no bucket %s, and this node makes none", name)
	}
	for wait := 10 * time.Millisecond; ; wait *= 4 {
		b, err = create()
		if errors.Is(err, jetstream.ErrBucketExists) {
			return look()
		}
		if !isPassing(err) || wait > maxCreateWait {
			return b, err
		}
		select {
		case <-ctx.Done():
			return b, err
		case <-time.After(wait):
		}
	}
}

// isPassing reports whether a bucket could not be made, but perhaps can in a
// moment: a server that has just deleted streams may still be removing the
// directory in which it makes the next.
func isPassing(err error) bool {
	var refusal *jetstream.APIError
	return errors.As(err, &refusal) && refusal.ErrorCode == streamCreateFailed
}

func (b Buckets) storage() jetstream.StorageType {
	if b.Storage == "memory" {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

// description says whose a bucket is to who looks at it, if it is somebody's.
func (b Buckets) description(t Tenant) string {
	if placeholder.FindString(b.BucketName) == "" {
		return "host services of workloads"
	}
	return "host services of workloads, first of " + t.Namespace + " " + t.Workload
}

// with does something with a bucket, once more if it has gone since it was last
// used. A bucket that somebody deletes is made anew, and empty.
func with[B comparable](ctx context.Context, s *Session, bucket *lazy[B], do func(B) error) error {
	if _, err := connected(ctx, s.conn); err != nil { // not even asked: what is sent now might arrive when nobody waits any more
		return err
	}
	b, err := bucket.get(ctx)
	if err != nil {
		return err
	}
	if err = do(b); err == nil || !isGone(err) {
		return err
	}
	bucket.drop(b)
	if b, err = bucket.get(ctx); err != nil {
		return err
	}
	return do(b)
}
