package artifact_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/artifact"
	"nex/internal/nextest"
)

const bucket = "B"

// store is an Object Store bucket on a NATS server of its own.
type store struct {
	t *testing.T
	jetstream.ObjectStore
	nc *nats.Conn
	js jetstream.JetStream
}

func newStore(t *testing.T) store {
	t.Helper()
	return openStore(t, nextest.Connect(t, nextest.Server(t)))
}

func openStore(t *testing.T, nc *nats.Conn) store {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s := store{t: t, nc: nc, js: js}
	if s.ObjectStore, err = js.CreateObjectStore(minute(t), jetstream.ObjectStoreConfig{Bucket: bucket, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	return s
}

func minute(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

const chunkSize = 4096 // bytes

// put stores random bytes in small chunks.
func (s store) put(key string, size int) []byte {
	s.t.Helper()
	data := make([]byte, size)
	_, _ = rand.Read(data) // never fails
	_, err := s.Put(minute(s.t), jetstream.ObjectMeta{
		Name: key, Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize},
	}, bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// chunks returns the stream of the bucket and the sequence numbers of the
// chunks of an object.
func (s store) chunks(key string) (jetstream.Stream, string, []uint64) {
	s.t.Helper()
	ctx := minute(s.t)
	stream, err := s.js.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		s.t.Fatal(err)
	}
	info, err := s.GetInfo(ctx, key)
	if err != nil {
		s.t.Fatal(err)
	}
	subject := "$O." + bucket + ".C." + info.NUID
	var seqs []uint64
	for next := uint64(1); ; {
		m, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return stream, subject, seqs
		}
		if err != nil {
			s.t.Fatal(err)
		}
		seqs, next = append(seqs, m.Sequence), m.Sequence+1
	}
}

func TestObjectStore(t *testing.T) {
	s := newStore(t)
	c, dir := newCache(t, plenty, artifact.ObjectStore{Conn: s.nc})
	for key, size := range map[string]int{"empty": 0, "small": 5, "dir/sub/echo.js": chunkSize, "large": 3 << 20} {
		data := s.put(key, size)
		for range 2 {
			a := fetch(t, c, key)
			if got, err := os.ReadFile(a.Path); err != nil || !bytes.Equal(got, data) || a.Size != int64(size) || a.SHA256 != digest(string(data)) {
				t.Errorf("%s: %+v with %d bytes, %v", key, a, len(got), err)
			}
		}
	}
	s.put("small", 10)
	if a := fetch(t, c, "small"); a.Size != 10 {
		t.Errorf("an old object came: %+v", a)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 5 {
		t.Errorf("the cache has %v", entries)
	}
}

func TestStatTellsSizeAndDigest(t *testing.T) {
	s := newStore(t)
	data := s.put("k", 10_000)
	info, err := artifact.ObjectStore{Conn: s.nc}.Stat(minute(t), artifact.Ref{Bucket: bucket, Key: "k"})
	if err != nil || info != (artifact.Info{Size: 10_000, SHA256: digest(string(data))}) {
		t.Errorf("got %+v, %v", info, err)
	}
}

// TestMissing fixes the texts that clients of Nex 0.2.7 compare.
func TestMissing(t *testing.T) {
	s := newStore(t)
	s.put("deleted", 5)
	if err := s.Delete(minute(t), "deleted"); err != nil {
		t.Fatal(err)
	}
	o := artifact.ObjectStore{Conn: s.nc}
	c, dir := newCache(t, plenty, o)
	for _, m := range []struct {
		ref  artifact.Ref
		text string
		code nex.Code
	}{
		{artifact.Ref{Bucket: "NONE", Key: "k"}, "nats: stream not found", nex.NotFound},
		{artifact.Ref{Bucket: bucket, Key: "none"}, "nats: object not found", nex.NotFound},
		{artifact.Ref{Bucket: bucket, Key: "deleted"}, "nats: object not found", nex.NotFound},
		{artifact.Ref{Bucket: "a.b", Key: "k"}, "nats: invalid object-store name", nex.Invalid},
		{artifact.Ref{Bucket: "", Key: "k"}, "nats: invalid object-store name", nex.Invalid},
		{artifact.Ref{Bucket: "a b\r\n", Key: "k"}, "nats: invalid object-store name", nex.Invalid},
	} {
		_, fetched := c.Fetch(minute(t), m.ref, anySize)
		_, opened := o.Open(minute(t), m.ref)
		for _, err := range []error{fetched, opened} {
			if nex.CodeOf(err) != m.code || err.Error() != m.text {
				t.Errorf("%+v: %v (%s)", m.ref, err, nex.CodeOf(err))
			}
		}
	}
	if _, err := c.Fetch(minute(t), artifact.Ref{Bucket: bucket}, anySize); err == nil {
		t.Error("fetched an object without a name")
	}
	wantFiles(t, dir)
}

func TestDomain(t *testing.T) {
	hub, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, JetStreamDomain: "hub", StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	hub.Start()
	defer hub.WaitForShutdown()
	defer hub.Shutdown()
	if !hub.ReadyForConnections(nextest.Patience) {
		t.Fatal("the NATS server did not start")
	}
	s := openStore(t, nextest.Connect(t, hub))
	s.put("k", 5)
	c, dir := newCache(t, plenty, artifact.ObjectStore{Conn: s.nc})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.Fetch(ctx, artifact.Ref{Bucket: bucket, Key: "k", Domain: "nowhere"}, anySize); err == nil {
		t.Error("fetched from a domain that is not there")
	}
	wantFiles(t, dir)
	for _, domain := range []string{"hub", ""} {
		if a, err := c.Fetch(minute(t), artifact.Ref{Bucket: bucket, Key: "k", Domain: domain}, anySize); err != nil || a.Size != 5 {
			t.Errorf("domain %q: %+v, %v", domain, a, err)
		}
	}
}

func TestCorruptedObjects(t *testing.T) {
	s := newStore(t)
	c, dir := newCache(t, plenty, artifact.ObjectStore{Conn: s.nc})
	for name, corrupt := range map[string]func(jetstream.Stream, string, []uint64) error{
		"first chunk lost": func(st jetstream.Stream, _ string, seqs []uint64) error { return st.DeleteMsg(minute(t), seqs[0]) },
		"last chunk lost": func(st jetstream.Stream, _ string, seqs []uint64) error {
			return st.DeleteMsg(minute(t), seqs[len(seqs)-1])
		},
		"a chunk too many": func(_ jetstream.Stream, subject string, _ []uint64) error {
			_, err := s.js.Publish(minute(t), subject, []byte("more"))
			return err
		},
		"last chunk altered": func(st jetstream.Stream, subject string, seqs []uint64) error {
			_, err := s.js.Publish(minute(t), subject, make([]byte, chunkSize))
			return errors.Join(err, st.DeleteMsg(minute(t), seqs[len(seqs)-1]))
		},
	} {
		s.put("k", 5*chunkSize)
		stream, subject, seqs := s.chunks("k")
		if len(seqs) != 5 {
			t.Fatalf("%d chunks", len(seqs))
		}
		if err := corrupt(stream, subject, seqs); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		a, err := c.Fetch(minute(t), artifact.Ref{Bucket: bucket, Key: "k"}, anySize)
		if !errors.Is(err, jetstream.ErrDigestMismatch) || a != (artifact.Artifact{}) {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
		wantFiles(t, dir)
	}
}

// TestObjectLargerThanItSays has metadata that announce less than there is.
func TestObjectLargerThanItSays(t *testing.T) {
	s := newStore(t)
	s.put("k", 50*chunkSize)
	ctx := minute(t)
	stream, err := s.js.Stream(ctx, "OBJ_"+bucket)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := stream.GetLastMsgForSubject(ctx, "$O."+bucket+".M.*")
	if err != nil {
		t.Fatal(err)
	}
	announced := bytes.Replace(meta.Data, []byte(`"size":204800`), []byte(`"size":10`), 1)
	if bytes.Equal(announced, meta.Data) {
		t.Fatalf("metadata: %s", meta.Data)
	}
	if _, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: meta.Subject, Data: announced, Header: nats.Header{"Nats-Rollup": {"sub"}}}); err != nil {
		t.Fatal(err)
	}
	c, dir := newCache(t, plenty, artifact.ObjectStore{Conn: s.nc})
	tooLarge := errors.New("too large")
	var asked []int64
	_, err = c.Fetch(ctx, artifact.Ref{Bucket: bucket, Key: "k"}, func(size int64) error {
		if asked = append(asked, size); size > 100 {
			return tooLarge
		}
		return nil
	})
	if !errors.Is(err, tooLarge) || len(asked) != 2 || asked[0] != 10 || asked[1] > 2*chunkSize {
		t.Errorf("asked %v, %v", asked, err)
	}
	wantFiles(t, dir)
}

// gated tells when a download begins to read, and lets it when the gate opens.
type gated struct {
	artifact.ObjectStore
	reading, gate chan struct{}
}

func newGated(nc *nats.Conn) gated {
	return gated{artifact.ObjectStore{Conn: nc}, make(chan struct{}, 1), make(chan struct{})}
}

func (g gated) Open(ctx context.Context, r artifact.Ref) (io.ReadCloser, error) {
	body, err := g.ObjectStore.Open(ctx, r)
	return gatedBody{body, g}, err
}

type gatedBody struct {
	io.ReadCloser
	gated
}

func (b gatedBody) Read(p []byte) (int, error) {
	select {
	case b.reading <- struct{}{}:
	default: // it was told before
	}
	<-b.gate
	return b.ReadCloser.Read(p)
}

// TestCancelOfAStalledDownload: a store that sends nothing does not hold a
// fetch whose context was cancelled until its deadline.
func TestCancelOfAStalledDownload(t *testing.T) {
	s := newStore(t)
	s.put("k", 5*chunkSize)
	stream, _, seqs := s.chunks("k")
	for _, seq := range slices.Backward(seqs) { // nothing is left to send
		if err := stream.DeleteMsg(minute(t), seq); err != nil {
			t.Fatal(err)
		}
	}
	g := newGated(s.nc)
	close(g.gate)
	c, dir := newCache(t, plenty, g)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Fetch(ctx, artifact.Ref{Bucket: bucket, Key: "k"}, anySize)
		failed <- err
	}()
	nextest.Await(t, g.reading, "the download")
	if _, err := s.nc.RTT(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := nextest.Await(t, failed, "the end"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantFiles(t, dir)

	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Fetch(ctx, artifact.Ref{Bucket: bucket, Key: "k"}, anySize); err == nil {
		t.Error("fetched what is not there")
	}
	wantFiles(t, dir)
}

// TestServerLostWhileDownloading: the fetch ends when its context does.
func TestServerLostWhileDownloading(t *testing.T) {
	natsServer := nextest.Server(t)
	s := openStore(t, nextest.Connect(t, natsServer))
	s.put("k", 32<<20)
	g := newGated(s.nc)
	c, dir := newCache(t, plenty, g)
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Fetch(ctx, artifact.Ref{Bucket: bucket, Key: "k"}, anySize)
		failed <- err
	}()
	nextest.Await(t, g.reading, "the download")
	natsServer.Shutdown()
	natsServer.WaitForShutdown()
	close(g.gate)
	cancel()
	if err := nextest.Await(t, failed, "the end"); err == nil {
		t.Error("fetched from a server that is gone")
	}
	wantFiles(t, dir)
}
