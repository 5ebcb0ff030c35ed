package hostsvc

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/nextest"
)

func TestBucketsAreMadeAsConfigured(t *testing.T) {
	r := newRig(t, Config{
		KV:          Buckets{BucketName: "mine-${workload_name}", MaxBytes: 1 << 20, Storage: "memory", TTL: time.Hour, History: 3},
		ObjectStore: Buckets{BucketName: "shared"},
	})
	s := r.open(t, "default", "w")
	do(t, s, "kv.keys", nil, nil)
	do(t, s, "objectstore.list", nil, nil)
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.Stream(t.Context(), "KV_mine-w")
	if err != nil {
		t.Fatal(err)
	}
	if c := kv.CachedInfo().Config; c.MaxBytes != 1<<20 || c.Storage != jetstream.MemoryStorage || c.MaxAge != time.Hour || c.MaxMsgsPerSubject != 3 || !c.AllowDirect {
		t.Errorf("%+v", c)
	}
	objects, err := js.Stream(t.Context(), "OBJ_shared")
	if err != nil {
		t.Fatal(err)
	}
	if c := objects.CachedInfo().Config; c.MaxBytes != 64<<20 || c.Storage != jetstream.FileStorage || c.MaxAge != 0 || c.Replicas != 1 {
		t.Errorf("%+v", c)
	}

	other := r.open(t, "another", "w2")
	do(t, s, "objectstore.put", args("name", "x"), []byte("for all"))
	if m := do(t, other, "objectstore.get", args("name", "x"), nil); string(m.Payload) != "for all" {
		t.Errorf("a shared store has %q", m.Payload)
	}
}

func TestBucketsAreNotMade(t *testing.T) {
	r := newRig(t, Config{KV: Buckets{NoProvision: true}, ObjectStore: Buckets{Replicas: 3}})
	s := r.open(t, "n", "w")
	fails(t, s, "kv.get", args("key", "a"), nil, nex.Unavailable, "no bucket hs_n_w_kv")
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "hs_n_w_kv", History: 5}); err != nil {
		t.Fatal(err)
	}
	do(t, s, "kv.set", args("key", "a"), nil)
	fails(t, s, "objectstore.list", nil, nil, nex.Unavailable, "replicas")
}

func TestReplicasMakeABucketTogether(t *testing.T) {
	r := newRig(t, Config{})
	var all sync.WaitGroup
	for i := range 8 {
		s := r.Open(Tenant{Namespace: "n", Workload: "w", ID: fmt.Sprint(i)}, Access{})
		t.Cleanup(s.Close)
		for j := range 4 {
			all.Go(func() {
				if _, err := ask(t.Context(), s, "kv.set", args("key", fmt.Sprintf("k%d.%d", i, j)), nil); err != nil {
					t.Error(err)
				}
				if _, err := ask(t.Context(), s, "objectstore.put", args("name", fmt.Sprintf("k%d.%d", i, j)), nil); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	s := r.open(t, "n", "w")
	var keys []string
	var objects []jetstream.ObjectInfo
	_ = json.Unmarshal(do(t, s, "kv.keys", nil, nil).Payload, &keys)
	_ = json.Unmarshal(do(t, s, "objectstore.list", nil, nil).Payload, &objects)
	if len(keys) != 32 || len(objects) != 32 || r.dials != 1 {
		t.Errorf("%d keys, %d objects, %d connections", len(keys), len(objects), r.dials)
	}
}

// A bucket that was there in another form is used as it is.
func TestBucketOfAnother(t *testing.T) {
	r := newRig(t, Config{})
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "hs_n_w_kv", History: 7}); err != nil {
		t.Fatal(err)
	}
	do(t, r.open(t, "n", "w"), "kv.set", args("key", "a"), nil)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KV_hs_n_v_kv", Subjects: []string{"odd"}}); err != nil {
		t.Fatal(err)
	}
	fails(t, r.open(t, "n", "v"), "kv.get", args("key", "a"), nil, nex.Unavailable, "")
}

func TestDeletedBucketsAreMadeAgain(t *testing.T) {
	r := newRig(t, Config{})
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []func(*testing.T, *Session){
		func(t *testing.T, s *Session) { fails(t, s, "kv.get", args("key", "a"), nil, nex.NotFound, "") },
		func(t *testing.T, s *Session) { do(t, s, "kv.set", args("key", "a"), nil) },
		func(t *testing.T, s *Session) { do(t, s, "kv.delete", args("key", "a"), nil) },
		func(t *testing.T, s *Session) { do(t, s, "kv.keys", nil, nil) },
		func(t *testing.T, s *Session) {
			fails(t, s, "objectstore.get", args("name", "a"), nil, nex.NotFound, "")
		},
		func(t *testing.T, s *Session) { do(t, s, "objectstore.put", args("name", "a"), []byte("x")) },
		func(t *testing.T, s *Session) {
			fails(t, s, "objectstore.delete", args("name", "a"), nil, nex.NotFound, "")
		},
		func(t *testing.T, s *Session) { do(t, s, "objectstore.list", nil, nil) },
	} {
		s := r.open(t, "n", "w")
		do(t, s, "kv.set", args("key", "a"), nil)
		do(t, s, "objectstore.put", args("name", "a"), []byte("x"))
		for _, stream := range []string{"KV_hs_n_w_kv", "OBJ_hs_n_w_obj"} {
			if err := js.DeleteStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
		}
		again(t, s)
		do(t, s, "kv.set", args("key", "a"), nil)
		do(t, s, "objectstore.put", args("name", "a"), []byte("x"))
	}
}

// What a workload fills it can empty again.
func TestFullBuckets(t *testing.T) {
	r := newRig(t, Config{KV: Buckets{MaxBytes: 4 << 10}, ObjectStore: Buckets{MaxBytes: 64 << 10}})
	s := r.open(t, "n", "w")
	fill := func(what, key string, size int) (n int) {
		for {
			_, err := ask(t.Context(), s, what, args(key, fmt.Sprintf("k%d", n)), make([]byte, size))
			if err != nil {
				if nex.CodeOf(err) != nex.TooLarge || !strings.Contains(err.Error(), "full") {
					t.Fatalf("%s: %v", what, err)
				}
				return n
			}
			n++
		}
	}
	n := fill("kv.set", "key", 1)
	for i := range n {
		do(t, s, "kv.delete", args("key", fmt.Sprintf("k%d", i)), nil)
	}
	if got := string(do(t, s, "kv.keys", nil, nil).Payload); got != "[]" {
		t.Errorf("left: %s", got)
	}
	m := fill("objectstore.put", "name", 1)
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil { // the last gaps
		_, err = js.Publish(t.Context(), "$O.hs_n_w_obj.C.x", nil)
	}
	for i := range m {
		do(t, s, "objectstore.delete", args("name", fmt.Sprintf("k%d", i)), nil)
	}
	if got := string(do(t, s, "objectstore.list", nil, nil).Payload); got != "[]" {
		t.Errorf("left: %s", got)
	}
	t.Logf("%d keys, %d objects", n, m)
	if n == 0 || m == 0 {
		t.Error("nothing fits")
	}
}

// A put that fails leaves the object of before, and the space there was.
func TestFailedPut(t *testing.T) {
	r := newRig(t, Config{ObjectStore: Buckets{MaxBytes: 192 << 10}})
	s := r.open(t, "n", "w")
	do(t, s, "objectstore.put", args("name", "a"), []byte("before"))
	fails(t, s, "objectstore.put", args("name", "a"), make([]byte, 200<<10), nex.TooLarge, "full")
	if m := do(t, s, "objectstore.get", args("name", "a"), nil); string(m.Payload) != "before" {
		t.Errorf("a put that failed left %q", m.Payload)
	}
	do(t, s, "objectstore.put", args("name", "b"), make([]byte, 180<<10))
}

// An object whose call is given up halfway leaves no pieces behind, and neither
// does one that is replaced or deleted.
func TestPiecesAreNotLeft(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	do(t, s, "objectstore.put", args("name", "b"), make([]byte, 1<<20))
	do(t, s, "objectstore.put", args("name", "b"), make([]byte, 1<<20))
	do(t, s, "objectstore.delete", args("name", "b"), nil)
	objects, _ := s.objects.opened()
	for i := range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		pieces := func(yield func([]byte) bool) {
			for range i {
				yield(make([]byte, 100))
			}
			cancel()
			yield(make([]byte, 100))
		}
		if err := objects.write(ctx, fmt.Sprint("N", i), pieces); err == nil && ctx.Err() == nil {
			t.Error("not given up")
		}
		objects.purge(ctx, fmt.Sprint("N", i))
		if _, err := objects.put(ctx, "a", make([]byte, 1<<20)); err == nil {
			t.Error("put")
		}
	}
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "OBJ_hs_n_w_obj")
	if err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context(), jetstream.WithSubjectFilter("$O.*.C.>"))
	if err != nil {
		t.Fatal(err)
	}
	if left := info.State.Subjects; len(left) > 0 {
		t.Errorf("pieces are left: %v", left)
	}
}

func TestWithoutJetStream(t *testing.T) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("the NATS server did not start")
	}
	s := rigOn(t, Config{}, srv).open(t, "n", "w")
	fails(t, s, "kv.get", args("key", "a"), nil, nex.Unavailable, "JetStream")
	fails(t, s, "objectstore.get", args("name", "a"), nil, nex.Unavailable, "JetStream")
	do(t, s, "messaging.publish", args("subject", "a"), nil)
}
