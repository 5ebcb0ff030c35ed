package hostsvc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// silent makes n requests that nobody answers and waits until they are under
// way. What they come to is sent on the channel.
func silent(ctx context.Context, t testing.TB, r *rig, s *Session, n int) <-chan error {
	t.Helper()
	asked, results := make(chan struct{}, n), make(chan error, n)
	r.answer(t, "silent", func(*nats.Msg) { asked <- struct{}{} })
	for range n {
		go func() {
			_, err := ask(ctx, s, "messaging.request", args("subject", "silent", "timeout_ms", "60000"), nil)
			results <- err
		}()
	}
	for range n {
		nextest.Await(t, asked, "the requests")
	}
	return results
}

func TestConcurrencyIsLimited(t *testing.T) {
	r := newRig(t, Config{MaxConcurrency: 3})
	s, other := r.open(t, "n", "w"), r.open(t, "n", "v")
	ctx, cancel := context.WithCancel(t.Context())
	results := silent(ctx, t, r, s, 3)
	for range 10 {
		fails(t, s, "kv.keys", nil, nil, nex.Overloaded, "under way")
	}
	do(t, other, "kv.keys", nil, nil)
	cancel()
	for range 3 {
		if err := nextest.Await(t, results, "the requests' end"); nex.CodeOf(err) != nex.Unavailable || !strings.Contains(err.Error(), "given up") {
			t.Errorf("%v", err)
		}
	}
	do(t, s, "kv.keys", nil, nil)
	if n := s.Refused(); n != 10 || other.Refused() != 0 {
		t.Errorf("%d and %d refused", n, other.Refused())
	}
	told := r.told()
	if len(told) == 0 || len(told) > 5 || told[0].Service != "kv" || told[0].Method != "keys" || told[0].Code != nex.Overloaded || told[0].Untold != 0 {
		t.Errorf("%+v", told)
	}
}

func TestRateIsLimited(t *testing.T) {
	r := newRig(t, Config{RatePerSecond: 0.001, Messaging: Messaging{Disabled: true}})
	s := r.open(t, "n", "w")
	do(t, s, "kv.keys", nil, nil)
	fails(t, s, "kv.keys", nil, nil, nex.Overloaded, "0.001 calls")
	fails(t, s, "messaging.publish", args("subject", "a"), nil, nex.Unsupported, "No such host service: messaging")
	do(t, r.open(t, "n", "v"), "kv.keys", nil, nil)
}

// Of many refusals one in a second is told, with how many there were since.
func TestRefusalsAreToldNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Refusal
		s := &Session{server: &Server{refused: func(_ Tenant, r Refusal) { told = append(told, r) }}}
		refuse := func(service string, code nex.Code) {
			s.note(guest.HostCall{Service: service, Method: "m"}, nex.Errorf(code, "why"))
		}
		for range 100 {
			refuse("kv", nex.Denied)
			refuse("kv", nex.Overloaded)
			refuse("http", nex.TooLarge)
			refuse("kv", nex.NotFound)
			refuse("kv", nex.Timeout)
		}
		time.Sleep(noteEvery)
		refuse("kv", nex.Denied)
		refuse("kv", nex.Denied)
		time.Sleep(noteEvery)
		refuse("kv", nex.Denied)
		want := []Refusal{
			{"kv", "m", nex.Denied, "why", 0}, {"kv", "m", nex.Overloaded, "why", 0}, {"http", "m", nex.TooLarge, "why", 0},
			{"kv", "m", nex.Denied, "why", 99}, {"kv", "m", nex.Denied, "why", 1},
		}
		if !slices.Equal(told, want) || s.Refused() != 303 {
			t.Errorf("%d refused, told %+v", s.Refused(), told)
		}
	})
}

// What answers take of the node's memory is limited for each session.
func TestMemoryIsLimited(t *testing.T) {
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 40<<20))
		w.(http.Flusher).Flush()
		<-release
	}))
	defer web.Close()
	cfg := local
	cfg.MaxBody = 60 << 20
	r := newRig(t, Config{HTTP: cfg})
	s := r.open(t, "n", "w")
	codes := make(chan nex.Code, 4)
	for range cap(codes) {
		go func() {
			_, err := ask(t.Context(), s, "http.get", args("url", web.URL, "timeout_ms", "60000"), nil)
			codes <- nex.CodeOf(err)
		}()
	}
	got := map[nex.Code]int{nextest.Await(t, codes, "a refusal"): 1}
	close(release)
	for range 3 {
		got[nextest.Await(t, codes, "the others")]++
	}
	if got[nex.Overloaded] == 0 || got[nex.Overloaded]+got[""] != 4 || s.held.Load() != 0 {
		t.Errorf("%v, %d bytes held", got, s.held.Load())
	}
	// How many had to be refused is up to their timing. One alone is not.
	m := do(t, s, "http.get", args("url", web.URL, "timeout_ms", "60000"), nil)
	if len(m.Payload) != 40<<20 {
		t.Errorf("%d bytes", len(m.Payload))
	}
}

// Many that wait for an answer do not hold up others.
func TestSlowCallsHoldUpNobody(t *testing.T) {
	web := website(t)
	r := newRig(t, Config{HTTP: local})
	quick := r.open(t, "quick", "w")
	measure := func() (kv, web_ time.Duration) {
		do(t, quick, "kv.set", args("key", "a"), []byte("x"))
		best := func(what string, a map[string]string) time.Duration {
			least := time.Hour
			for range 20 {
				start := time.Now()
				do(t, quick, what, a, nil)
				least = min(least, time.Since(start))
			}
			return least
		}
		return best("kv.get", args("key", "a")), best("http.get", args("url", web.URL+"/echo"))
	}
	kvAlone, webAlone := measure()
	ctx, cancel := context.WithCancel(t.Context())
	var all []<-chan error
	for i := range 2 {
		all = append(all, silent(ctx, t, r, r.open(t, "slow", fmt.Sprint("w", i)), 100))
	}
	kvBeside, webBeside := measure()
	t.Logf("kv get %v alone, %v beside 200 that wait; http get %v and %v", kvAlone, kvBeside, webAlone, webBeside)
	if kvBeside > 20*kvAlone+100*time.Millisecond || webBeside > 20*webAlone+100*time.Millisecond {
		t.Error("they wait for each other")
	}
	cancel()
	for _, results := range all {
		for range 100 {
			nextest.Await(t, results, "the requests' end")
		}
	}
}

func TestCloseEndsCalls(t *testing.T) {
	web := website(t)
	r := newRig(t, Config{HTTP: local})
	s := r.open(t, "n", "w")
	results := silent(t.Context(), t, r, s, 5)
	var others sync.WaitGroup
	for _, a := range []map[string]string{args("url", web.URL+"/silent"), args("url", web.URL+"/stuck")} {
		others.Go(func() {
			if _, err := ask(t.Context(), s, "http.get", a, nil); nex.CodeOf(err) != nex.Unavailable {
				t.Errorf("%v", err)
			}
		})
	}
	others.Go(func() {
		if _, err := ask(t.Context(), s, "messaging.requestMany", args("subject", "silent", "timeout_ms", "60000"), nil); nex.CodeOf(err) != nex.Unavailable {
			t.Errorf("%v", err)
		}
	})
	s.Close()
	for range 5 {
		if err := nextest.Await(t, results, "the requests' end"); nex.CodeOf(err) != nex.Unavailable || !strings.Contains(err.Error(), "ended") {
			t.Errorf("%v", err)
		}
	}
	others.Wait()
	fails(t, s, "kv.keys", nil, nil, nex.Unavailable, "ended")
	do(t, r.open(t, "n", "v"), "kv.keys", nil, nil)
	r.Close()
	fails(t, r.open(t, "n", "z"), "kv.keys", nil, nil, nex.Unavailable, "")
}

// When NATS is away calls fail at once, and work when it is back.
func TestNATSComesBack(t *testing.T) {
	dir := t.TempDir()
	srv, err := nextest.StartServer(dir, server.RANDOM_PORT)
	if err != nil {
		t.Fatal(err)
	}
	r := rigOn(t, Config{}, srv)
	s := r.open(t, "n", "w")
	do(t, s, "kv.set", args("key", "a"), []byte("1"))
	nc, _ := r.conn.opened()
	status := nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING)
	port := portOf(t, srv)
	srv.Shutdown()
	srv.WaitForShutdown()
	for nextest.Await(t, status, "the connection's end") != nats.RECONNECTING {
	}
	for _, c := range []struct{ what, name string }{
		{"kv.get", "key"}, {"kv.set", "key"}, {"objectstore.get", "name"}, {"messaging.publish", "subject"}, {"messaging.request", "subject"},
	} {
		fails(t, s, c.what, args(c.name, "a"), nil, nex.Unavailable, "NATS cannot be reached now")
	}
	srv, err = nextest.StartServer(dir, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	for nextest.Await(t, status, "the connection's return") != nats.CONNECTED {
	}
	if m := do(t, s, "kv.get", args("key", "a"), nil); string(m.Payload) != "1" {
		t.Errorf("%q", m.Payload)
	}

	// A connection that gave up is made anew.
	nc.Close()
	if m := do(t, s, "kv.get", args("key", "a"), nil); string(m.Payload) != "1" || r.dials != 2 {
		t.Errorf("%q, %d connections", m.Payload, r.dials)
	}
}

func portOf(t testing.TB, srv *server.Server) (port int) {
	t.Helper()
	url := srv.ClientURL()
	if _, err := fmt.Sscan(url[strings.LastIndex(url, ":")+1:], &port); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestNATSIsNotThere(t *testing.T) {
	dials := 0
	s, err := New(Config{}, func(context.Context) (*nats.Conn, error) {
		dials++
		return nil, errors.New("dial tcp 10.9.8.7:4222: secret")
	}, func(Tenant, Refusal) {})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	session := s.Open(Tenant{}, Access{})
	defer session.Close()
	if dials != 0 {
		t.Error("connected before anybody asked")
	}
	_, err = ask(t.Context(), session, "kv.keys", nil, nil)
	if nex.CodeOf(err) != nex.Unavailable || strings.Contains(err.Error(), "10.9.8.7") {
		t.Errorf("%v", err)
	}
}

// accounts is a NATS server with JetStream that lets in whom an operator's
// account signed, and access to it.
func accounts(t *testing.T) (srv *server.Server, user, workload nex.NATSAccess) {
	t.Helper()
	operator, account := must(nkeys.CreateOperator())(t), must(nkeys.CreateAccount())(t)
	id := must(account.PublicKey())(t)
	system := must(must(nkeys.CreateAccount())(t).PublicKey())(t)
	claims := jwt.NewAccountClaims(id)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	resolver := &server.MemAccResolver{}
	for id, claims := range map[string]*jwt.AccountClaims{id: claims, system: jwt.NewAccountClaims(system)} {
		if err := resolver.Store(id, must(claims.Encode(operator))(t)); err != nil {
			t.Fatal(err)
		}
	}
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: true, StoreDir: t.TempDir(),
		AccountResolver: resolver, TrustedKeys: []string{must(operator.PublicKey())(t)}, SystemAccount: system,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	if !srv.ReadyForConnections(nextest.Patience) {
		t.Fatal("the NATS server did not start")
	}
	access := func() nex.NATSAccess {
		key := must(nkeys.CreateUser())(t)
		return nex.NATSAccess{
			URL: srv.ClientURL(), JWT: must(jwt.NewUserClaims(must(key.PublicKey())(t)).Encode(account))(t),
			Seed: nex.Secret(must(key.Seed())(t)),
		}
	}
	return srv, access(), access()
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// A workload's own NATS is where its request says, and nowhere else.
func TestNATSOfAWorkload(t *testing.T) {
	srv, user, access := accounts(t)
	r := newRig(t, Config{})
	own := r.Open(Tenant{Namespace: "n", Workload: "w", ID: "1"}, Access{NATS: &access})
	defer own.Close()
	if srv.NumClients() != 0 {
		t.Error("connected before anybody asked")
	}
	do(t, own, "kv.set", args("key", "a"), []byte("x"))
	do(t, own, "kv.get", args("key", "a"), nil)
	do(t, own, "objectstore.put", args("name", "a"), []byte("x"))
	do(t, own, "objectstore.get", args("name", "a"), nil)
	if r.dials != 0 || srv.NumClients() != 1 {
		t.Errorf("%d shared connections, %d clients", r.dials, srv.NumClients())
	}
	shared := r.open(t, "n", "w")
	fails(t, shared, "kv.get", args("key", "a"), nil, nex.NotFound, "")

	nc, err := nats.Connect(user.URL, nats.UserJWTAndSeed(user.JWT, string(user.Seed)))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	there := rig{nc: nc}
	there.answer(t, "echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	if m := do(t, own, "messaging.request", args("subject", "echo"), []byte("x")); string(m.Payload) != "x" {
		t.Errorf("%q", m.Payload)
	}
	fails(t, shared, "messaging.request", args("subject", "echo"), nil, nex.Unavailable, "nobody answers")

	// The last message leaves before the connection ends.
	got := make(chan struct{}, 1)
	there.answer(t, "last", func(*nats.Msg) { got <- struct{}{} })
	do(t, own, "messaging.publish", args("subject", "last"), nil)
	own.Close()
	nextest.Await(t, got, "the last message")

	for name, a := range map[string]nex.NATSAccess{
		"not let in": {URL: access.URL}, "no server": {}, "half a user": {URL: access.URL, JWT: access.JWT}, "no seed": {URL: access.URL, JWT: access.JWT, Seed: "SUsecret"},
		"nobody there": {URL: "nats://127.0.0.1:1", JWT: access.JWT, Seed: access.Seed},
	} {
		s := r.Open(Tenant{}, Access{NATS: &a})
		_, err := ask(t.Context(), s, "kv.keys", nil, nil)
		if nex.CodeOf(err) != nex.Unavailable || strings.Contains(err.Error(), "SU") || strings.Contains(err.Error(), access.JWT) {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v", name, err)
		s.Close()
	}
}
