package hostsvc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
	"nex/internal/nextest/leaks"
)

func TestMain(m *testing.M) {
	os.Exit(leaks.Run(trusting{m}))
}

// trusting are tests that trust the servers of this package.
type trusting struct{ *testing.M }

func (t trusting) Run() int {
	defer trustTestServers()()
	return t.M.Run()
}

// rig is a server of host services with its NATS, and what it refused.
type rig struct {
	*Server
	nats *server.Server
	nc   *nats.Conn // somebody else's

	mu       sync.Mutex
	dials    int
	refusals []Refusal
}

func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	return rigOn(t, cfg, nextest.Server(t))
}

func rigOn(t testing.TB, cfg Config, srv *server.Server) *rig {
	t.Helper()
	r := &rig{nats: srv, nc: nextest.Connect(t, srv)}
	s, err := New(cfg, r.dial, r.refuse)
	if err != nil {
		t.Fatal(err)
	}
	r.Server = s
	t.Cleanup(s.Close)
	return r
}

func (r *rig) dial(context.Context) (*nats.Conn, error) {
	r.mu.Lock()
	r.dials++
	r.mu.Unlock()
	return nats.Connect(r.nats.ClientURL(), nats.ReconnectWait(10*time.Millisecond), nats.MaxReconnects(-1))
}

func (r *rig) refuse(_ Tenant, refusal Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusals = append(r.refusals, refusal)
}

func (r *rig) told() []Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.refusals)
}

// open begins a session that ends with the test.
func (r *rig) open(t testing.TB, namespace, workload string) *Session {
	t.Helper()
	s := r.Open(Tenant{Namespace: namespace, Workload: workload, ID: namespace + workload}, Access{})
	t.Cleanup(s.Close)
	return s
}

// args makes arguments of a list of names and values.
func args(list ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(list); i += 2 {
		m[list[i]] = list[i+1]
	}
	return m
}

// ask makes a call, named as in kv.get.
func ask(ctx context.Context, s *Session, what string, a map[string]string, payload []byte) (guest.Message, error) {
	service, method, _ := strings.Cut(what, ".")
	return s.Serve(ctx, guest.HostCall{
		Timeout: nextest.Patience, Service: service, Method: method, Message: guest.Message{Args: a, Payload: payload},
	})
}

// do makes a call that must succeed.
func do(t testing.TB, s *Session, what string, a map[string]string, payload []byte) guest.Message {
	t.Helper()
	m, err := ask(t.Context(), s, what, a, payload)
	if err != nil {
		t.Fatalf("%s %v: %v (%s)", what, a, err, nex.CodeOf(err))
	}
	return m
}

// fails makes a call that must fail with a code and a text that has some words
// in it.
func fails(t testing.TB, s *Session, what string, a map[string]string, payload []byte, code nex.Code, words string) {
	t.Helper()
	_, err := ask(t.Context(), s, what, a, payload)
	if nex.CodeOf(err) != code || !strings.Contains(err.Error(), words) {
		t.Errorf("%s %.200v: %v (%s), want %s: …%s…", what, a, err, nex.CodeOf(err), code, words)
	}
}

// allBytes has every byte, and n of them in all.
func allBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestKV(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "default", "echofn")
	if got := string(do(t, s, "kv.keys", nil, nil).Payload); got != "[]" {
		t.Errorf("keys of nothing: %s", got)
	}
	if got := do(t, s, "kv.set", args("key", "hello"), []byte("value")).Args["revision"]; got != "1" {
		t.Errorf("revision %s", got)
	}
	if m := do(t, s, "kv.get", args("key", "hello"), nil); string(m.Payload) != "value" || m.Args["revision"] != "1" {
		t.Errorf("%+v", m)
	}
	for i, value := range [][]byte{nil, allBytes(256), allBytes(1 << 19)} {
		key := fmt.Sprint("a/b=c.d-e_", i)
		do(t, s, "kv.set", args("key", key), value)
		if m := do(t, s, "kv.get", args("key", key), nil); !bytes.Equal(m.Payload, value) {
			t.Errorf("%d bytes came back as %d", len(value), len(m.Payload))
		}
	}
	do(t, s, "kv.delete", args("key", "hello"), nil)
	do(t, s, "kv.delete", args("key", "never"), nil)
	fails(t, s, "kv.get", args("key", "hello"), nil, nex.NotFound, "key not found")
	fails(t, s, "kv.get", args("key", "other"), nil, nex.NotFound, "key not found")
	if got := string(do(t, s, "kv.keys", nil, nil).Payload); got != `["a/b=c.d-e_0","a/b=c.d-e_1","a/b=c.d-e_2"]` {
		t.Errorf("keys: %s", got)
	}
	for _, method := range []string{"kv.get", "kv.set", "kv.delete"} {
		fails(t, s, method, nil, nil, nex.Invalid, "key is required")
		for _, key := range []string{"a b", ".a", "a.", "a..b", "*", "a.>", "ü", "a\r\nPUB x 1", "a\x00", "$KV"} {
			fails(t, s, method, args("key", key), nil, nex.Invalid, "letters, digits and -/_=.")
		}
		fails(t, s, method, args("key", strings.Repeat("k", 1025)), nil, nex.Invalid, "1024")
	}
	long := strings.Repeat("k.", 511) + "kk"
	do(t, s, "kv.set", args("key", long), []byte("x"))
	fails(t, s, "kv.set", args("key", "large"), make([]byte, 1<<20+1), nex.TooLarge, "larger")
	fails(t, s, "kv.get", args("key", "large"), nil, nex.NotFound, "")
	fails(t, s, "kv.Get", args("key", "a"), nil, nex.Unsupported, "no method")
	fails(t, s, "sql.get", args("key", "a"), nil, nex.Unsupported, "No such host service: sql")

	if n := s.Refused(); n != 1 { // the large one
		t.Errorf("%d refused", n)
	}
	if r.dials != 1 {
		t.Errorf("%d connections", r.dials)
	}
}

func TestObjectStore(t *testing.T) {
	r := newRig(t, Config{})
	s := r.open(t, "default", "echofn")
	if got := string(do(t, s, "objectstore.list", nil, nil).Payload); got != "[]" {
		t.Errorf("list of nothing: %s", got)
	}
	var info map[string]any
	if err := json.Unmarshal(do(t, s, "objectstore.put", args("name", "o1"), []byte("hello")).Payload, &info); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{
		"name": "o1", "bucket": "hs_default_echofn_obj", "size": 5., "chunks": 1.,
		"digest": "SHA-256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
	} {
		if info[key] != want {
			t.Errorf("%s is %v, want %v", key, info[key], want)
		}
	}
	names := []string{"o1", "a b/ü.*", strings.Repeat("n", 1024)}
	for i, value := range [][]byte{allBytes(8 << 20), nil, allBytes(256)} {
		do(t, s, "objectstore.put", args("name", names[i]), value)
		if m := do(t, s, "objectstore.get", args("name", names[i]), nil); !bytes.Equal(m.Payload, value) {
			t.Errorf("%d bytes came back as %d", len(value), len(m.Payload))
		}
	}
	var list []jetstream.ObjectInfo
	if err := json.Unmarshal(do(t, s, "objectstore.list", nil, nil).Payload, &list); err != nil || len(list) != 3 || list[0].ModTime.IsZero() {
		t.Errorf("%v, %v", list, err)
	}
	do(t, s, "objectstore.delete", args("name", "o1"), nil)
	for _, method := range []string{"objectstore.get", "objectstore.delete"} {
		fails(t, s, method, args("name", "o1"), nil, nex.NotFound, "object not found")
		fails(t, s, method, args("name", "never"), nil, nex.NotFound, "object not found")
	}
	for _, method := range []string{"objectstore.get", "objectstore.put", "objectstore.delete"} {
		fails(t, s, method, nil, nil, nex.Invalid, "name is required")
		fails(t, s, method, args("name", "a\xff"), nil, nex.Invalid, "UTF-8")
		fails(t, s, method, args("name", strings.Repeat("n", 1025)), nil, nex.Invalid, "1024")
	}
}

// An object that leads to another tenant's bucket, or that somebody spoiled, is
// not read.
func TestStrangeObjects(t *testing.T) {
	r := newRig(t, Config{})
	a, b := r.open(t, "a", "w"), r.open(t, "b", "w")
	do(t, a, "objectstore.put", args("name", "secret"), []byte("of a"))
	do(t, b, "objectstore.put", args("name", "spoiled"), []byte("of b"))
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	of := func(bucket string) jetstream.ObjectStore {
		store, err := js.ObjectStore(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	secret, err := of("hs_a_w_obj").GetInfo(t.Context(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := of("hs_b_w_obj").AddLink(t.Context(), "link", secret); err != nil {
		t.Fatal(err)
	}
	spoiled, err := of("hs_b_w_obj").GetInfo(t.Context(), "spoiled")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "$O.hs_b_w_obj.C."+spoiled.NUID, []byte("!")); err != nil {
		t.Fatal(err)
	}
	fails(t, b, "objectstore.get", args("name", "link"), nil, nex.Denied, "link")
	fails(t, b, "objectstore.get", args("name", "secret"), nil, nex.NotFound, "")
	m := do(t, b, "objectstore.get", args("name", "spoiled"), nil)
	if string(m.Payload) != "of b" {
		t.Errorf("%q", m.Payload)
	}
	do(t, a, "objectstore.get", args("name", "secret"), nil)

	spoiled.NUID = ">"
	text, _ := json.Marshal(spoiled)
	if _, err := js.Publish(t.Context(), "$O.hs_b_w_obj.M.c3BvaWxlZA==", text); err != nil {
		t.Fatal(err)
	}
	fails(t, b, "objectstore.get", args("name", "spoiled"), nil, nex.Unavailable, "put it again")
}

// Tenants whose names run together have buckets of their own.
func TestTenantsDoNotMeet(t *testing.T) {
	r := newRig(t, Config{})
	names := []string{"a", "a_b", "b", "b_c", "c", "_", "a_b_c"}
	var sessions []*Session
	for _, namespace := range names[:3] {
		for _, workload := range names {
			s := r.open(t, namespace, workload)
			sessions = append(sessions, s)
			do(t, s, "kv.set", args("key", namespace+"."+workload), []byte("x"))
		}
	}
	for _, s := range sessions {
		want := fmt.Sprintf(`["%s.%s"]`, s.tenant.Namespace, s.tenant.Workload)
		if got := string(do(t, s, "kv.keys", nil, nil).Payload); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	replica := r.Open(Tenant{Namespace: "a", Workload: "b", ID: "another"}, Access{})
	defer replica.Close()
	if got := string(do(t, replica, "kv.keys", nil, nil).Payload); got != `["a.b"]` {
		t.Errorf("a replica has %s", got)
	}
}

func TestLongNames(t *testing.T) {
	r := newRig(t, Config{})
	long := func(n int, c string) string { return strings.Repeat(c, n) }
	for _, names := range [][2]string{
		{long(120, "n"), long(251-120-len("hs___kv"), "w")}, {long(255, "n"), long(255, "w")}, {long(80, "ü"), long(255, "_")},
	} {
		s := r.open(t, names[0], names[1])
		do(t, s, "kv.set", args("key", long(1024, "k")), []byte("x"))
		do(t, s, "kv.get", args("key", long(1024, "k")), nil)
		do(t, s, "kv.keys", nil, nil)
		do(t, s, "kv.delete", args("key", long(1024, "k")), nil)
		do(t, s, "objectstore.put", args("name", long(1024, "k")), []byte("x"))
		do(t, s, "objectstore.get", args("name", long(1024, "k")), nil)
	}
}
