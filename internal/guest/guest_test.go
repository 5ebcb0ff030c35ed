package guest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest/leaks"
)

func TestMain(m *testing.M) { os.Exit(leaks.Run(m)) }

// agent is a Handler whose behaviour a test sets.
type agent struct {
	mu       sync.Mutex
	artifact map[string][]byte
	invoke   func(context.Context, guest.Trigger) (guest.Result, error)
	deploy   func(context.Context, guest.Deploy) error
}

func (a *agent) Put(_ context.Context, id string, piece []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.artifact[id] = append(a.artifact[id], piece...)
	return nil
}

func (a *agent) Deploy(ctx context.Context, d guest.Deploy) error {
	if a.deploy == nil {
		return nil
	}
	return a.deploy(ctx, d)
}

func (a *agent) Invoke(ctx context.Context, t guest.Trigger) (guest.Result, error) {
	return a.invoke(ctx, t)
}

func (a *agent) Undeploy(context.Context, string) error { return nil }

func (a *agent) Probe(_ context.Context, p guest.Probe) error {
	if p.Port == 1 {
		return nex.Errorf(nex.Unavailable, "port 1 does not answer %s", p.ID)
	}
	return nil
}

func echo(_ context.Context, t guest.Trigger) (guest.Result, error) {
	return guest.Result{Payload: t.Payload}, nil
}

type peers struct {
	*guest.Client
	server *guest.Server
	hangUp func() // ends the agent's side
}

// Invoke calls and waits for the answer.
func (p peers) Invoke(ctx context.Context, t guest.Trigger) (r guest.Result, err error) {
	due, ok := ctx.Deadline()
	if !ok {
		due = time.Now().Add(time.Hour)
	}
	answered := make(chan struct{})
	p.Client.Invoke(t, due, true, func(got guest.Result, failed error) {
		r, err = got, failed
		close(answered)
	})
	<-answered
	return r, err
}

// sockets returns both ends of a stream of the system's.
func sockets(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// connect joins a Client and a Server over a stream in memory, which shows the
// race detector what happens before what.
func connect(t *testing.T, a *agent) peers {
	t.Helper()
	near, far := net.Pipe()
	return join(t, a, near, far)
}

// connectSockets joins them over a socket, as in life.
func connectSockets(t *testing.T, a *agent) peers {
	t.Helper()
	near, far := sockets(t)
	return join(t, a, near, far)
}

// join joins a Client and a Server over the ends of a stream.
func join(t *testing.T, a *agent, near, far net.Conn) peers {
	t.Helper()
	a.artifact = map[string][]byte{}
	type greeted struct {
		c   *guest.Client
		err error
	}
	ch := make(chan greeted, 1)
	go func() {
		c, err := guest.Greet(t.Context(), near)
		ch <- greeted{c, err}
	}()
	s := guest.NewServer(far, a)
	served := make(chan error, 1)
	ctx, hangUp := context.WithCancel(context.Background())
	go func() { served <- s.Run(ctx, guest.Hello{Version: "test", Types: []nex.WorkloadType{nex.V8}}) }()
	g := <-ch
	if g.err != nil {
		t.Fatal(g.err)
	}
	t.Cleanup(func() { hangUp(); g.c.Close(); <-served })
	return peers{g.c, s, hangUp}
}

func TestInvokeCarriesEveryField(t *testing.T) {
	var got guest.Trigger
	c := connect(t, &agent{invoke: func(_ context.Context, tr guest.Trigger) (guest.Result, error) {
		got = tr
		return guest.Result{Payload: []byte("out"), Header: map[string][]string{"B": {"3", ""}}}, nil
	}})
	want := guest.Trigger{
		ID: "w1", Subject: "js.echo", Reply: "_INBOX.x", Payload: []byte("in"), Timeout: time.Minute,
		Header: map[string][]string{"A": {"1", "2"}, "Long": {strings.Repeat("x", 100_000)}},
	}
	r, err := c.Invoke(t.Context(), want)
	if err != nil || string(r.Payload) != "out" || r.Elapsed <= 0 || !reflect.DeepEqual(r.Header, map[string][]string{"B": {"3", ""}}) {
		t.Fatalf("got %q %v in %d, %v", r.Payload, r.Header, r.Elapsed, err)
	}
	if got.ID != want.ID || got.Subject != want.Subject || got.Reply != want.Reply || string(got.Payload) != "in" ||
		len(got.Header["A"]) != 2 || got.Header["Long"][0] != want.Header["Long"][0] || got.Timeout != want.Timeout {
		t.Errorf("trigger arrived as %+v", got)
	}
}

func TestLargeAndConcurrentMessages(t *testing.T) {
	c := connectSockets(t, &agent{invoke: echo})
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			payload := make([]byte, i*37_337)
			rand.Read(payload)
			r, err := c.Invoke(t.Context(), guest.Trigger{Payload: payload, Timeout: time.Minute})
			if err != nil || !bytes.Equal(r.Payload, payload) {
				t.Errorf("payload of %d bytes came back as %d bytes, %v", len(payload), len(r.Payload), err)
			}
		})
	}
	wg.Wait()
}

func TestOversizedMessagesAreRefused(t *testing.T) {
	c := connect(t, &agent{invoke: func(context.Context, guest.Trigger) (guest.Result, error) {
		return guest.Result{Payload: make([]byte, guest.MaxMessage+1)}, nil
	}})
	if _, err := c.Invoke(t.Context(), guest.Trigger{Payload: make([]byte, guest.MaxMessage+1), Timeout: time.Minute}); nex.CodeOf(err) != nex.Invalid {
		t.Errorf("oversized call: %v", err)
	}
	if _, err := c.Invoke(t.Context(), guest.Trigger{Timeout: time.Minute}); nex.CodeOf(err) != nex.BadReply {
		t.Errorf("oversized reply: %v", err)
	}
	if c.Err() != nil {
		t.Errorf("link ended: %v", c.Err())
	}
}

func TestFailuresKeepTheirCode(t *testing.T) {
	c := connect(t, &agent{invoke: func(context.Context, guest.Trigger) (guest.Result, error) {
		return guest.Result{}, nex.Errorf(nex.Exception, "Error: boom")
	}})
	_, err := c.Invoke(t.Context(), guest.Trigger{Timeout: time.Minute})
	var e *nex.Error
	if !errors.As(err, &e) || e.Code != nex.Exception || e.Message != "Error: boom" {
		t.Fatalf("got %v", err)
	}
}

func TestTimeoutReachesTheHandler(t *testing.T) {
	c := connect(t, &agent{invoke: func(ctx context.Context, _ guest.Trigger) (guest.Result, error) {
		<-ctx.Done()
		return guest.Result{}, nex.Errorf(nex.Timeout, "stopped")
	}})
	_, err := c.Invoke(t.Context(), guest.Trigger{Timeout: 20 * time.Millisecond})
	if nex.CodeOf(err) != nex.Timeout {
		t.Fatalf("got %v", err)
	}
}

func TestCancelReachesTheHandler(t *testing.T) {
	stopped := make(chan struct{})
	c := connect(t, &agent{invoke: func(ctx context.Context, _ guest.Trigger) (guest.Result, error) {
		<-ctx.Done()
		close(stopped)
		return guest.Result{}, ctx.Err()
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Invoke(ctx, guest.Trigger{Timeout: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	await(t, stopped, "the handler to be cancelled")
	if c.Err() != nil {
		t.Errorf("an agent that obeys lost its link: %v", c.Err())
	}
}

func TestAgentThatIgnoresCancelLosesItsLink(t *testing.T) {
	release := make(chan struct{})
	c := connectSockets(t, &agent{invoke: func(context.Context, guest.Trigger) (guest.Result, error) {
		<-release
		return guest.Result{}, nil
	}})
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Invoke(ctx, guest.Trigger{Timeout: time.Hour}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	await(t, c.Done(), "the link to end")
}

func TestDeploySendsTheArtifactInOrder(t *testing.T) {
	a := &agent{invoke: echo}
	c := connect(t, a)
	artifact := make([]byte, 1_000_001)
	rand.Read(artifact)
	var got guest.Deploy
	a.deploy = func(_ context.Context, d guest.Deploy) error { got = d; return nil }
	d := guest.Deploy{ID: "w1", Name: "n", Type: nex.V8, Environment: map[string]string{"K": "V"}}
	if err := c.Deploy(t.Context(), d, bytes.NewReader(artifact), guest.Sink{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.artifact["w1"], artifact) || got.Environment["K"] != "V" {
		t.Errorf("artifact of %d bytes arrived as %d, deploy as %+v", len(artifact), len(a.artifact["w1"]), got)
	}
}

func TestNoticesReachTheirWorkloadOnly(t *testing.T) {
	c := connect(t, &agent{invoke: echo})
	lines := make(chan string, 10)
	exits := make(chan guest.Exit, 10)
	sink := guest.Sink{
		Log:    func(level slog.Level, text string) { lines <- level.String() + " " + text },
		Exited: func(e guest.Exit) { exits <- e },
	}
	if err := c.Deploy(t.Context(), guest.Deploy{ID: "mine"}, strings.NewReader(""), sink); err != nil {
		t.Fatal(err)
	}
	c.server.Log("someone-elses", slog.LevelError, "dropped")
	c.server.Log("mine", slog.LevelWarn, "heard")
	if err := c.server.Exited("mine", guest.Exit{Code: 3, Message: "exit status 3"}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, lines); got != "WARN heard" {
		t.Errorf("log %q", got)
	}
	if got := receive(t, exits); got.Code != 3 {
		t.Errorf("exit %+v", got)
	}
}

func TestLostLinkAnswersCallsInFlight(t *testing.T) {
	entered := make(chan struct{})
	c := connect(t, &agent{invoke: func(ctx context.Context, _ guest.Trigger) (guest.Result, error) {
		close(entered)
		<-ctx.Done()
		return guest.Result{}, ctx.Err()
	}})
	failed := make(chan error, 1)
	go func() {
		_, err := c.Invoke(context.Background(), guest.Trigger{Timeout: time.Hour})
		failed <- err
	}()
	await(t, entered, "the call")
	c.hangUp()
	if err := receive(t, failed); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("call in flight got %v", err)
	}
	if _, err := c.Invoke(t.Context(), guest.Trigger{Timeout: time.Hour}); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("call afterwards got %v", err)
	}
}

func TestGreetRefusesBadBeginnings(t *testing.T) {
	hello := func(body string) []byte {
		return append([]byte{0, 0, 0, byte(len(body)), 1, 0, 0, 0, 0, 0, 0, 0}, body...)
	}
	for name, tc := range map[string]struct {
		bytes []byte
		want  string
	}{
		"nothing":        {nil, "ended before it said hello"},
		"noise":          {[]byte("GET / HTTP/1.1\r\n\r\n"), "malformed frame"},
		"not json":       {hello("nope"), "did not begin with a hello"},
		"other protocol": {hello(`{"protocol":9,"version":"x"}`), "install nex and nex-agent of one version"},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() { _, _ = far.Write(tc.bytes); _ = far.Close() }()
			if _, err := guest.Greet(t.Context(), near); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestGreetGivesUp(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := guest.Greet(ctx, near); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestHostileAgent sends frames no honest agent sends; each must end the link
// and none may hang or crash the node.
func TestHostileAgent(t *testing.T) {
	frame := func(kind, flags byte, id byte, body string) []byte {
		return append([]byte{0, 0, 0, byte(len(body)), kind, flags, 0, 0, 0, 0, 0, id}, body...)
	}
	for name, bytes := range map[string][]byte{
		"second hello":          frame(1, 0, 0, `{}`),
		"answer nobody asked":   frame(3, 0, 7, "x"),
		"failure nobody asked":  frame(4, 0, 7, "x"),
		"unknown kind":          frame(99, 0, 0, ""),
		"unknown flags":         frame(6, 2, 0, ""),
		"empty notice":          frame(6, 0, 0, ""),
		"unknown topic":         frame(6, 0, 0, "\x63"),
		"short log":             frame(6, 0, 0, "\x01\x00\x00"),
		"bad exit":              frame(6, 0, 0, "\x02{"),
		"notice in parts":       frame(6, 1, 0, "\x01"),
		"oversized frame":       {0xff, 0xff, 0xff, 0xff, 6, 0, 0, 0, 0, 0, 0, 0},
		"truncated header":      {0, 0},
		"notice with a call id": frame(6, 0, 5, "\x01"),
		"a call to the node":    frame(2, 0, 1, "x"),
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				hello := `{"protocol":1}`
				_, _ = far.Write(frame(1, 0, 0, hello))
				_, _ = far.Write(bytes)
				_ = far.Close()
			}()
			c, err := guest.Greet(t.Context(), near)
			if err != nil {
				t.Fatal(err)
			}
			await(t, c.Done(), "the link to end")
			c.Close()
		})
	}
}

func await(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(20 * time.Second):
		t.Fatalf("waited in vain for %s", what)
	}
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain")
		panic("unreachable")
	}
}

func TestHeadsLargerThanAFrame(t *testing.T) {
	c := connect(t, &agent{invoke: func(_ context.Context, tr guest.Trigger) (guest.Result, error) {
		return guest.Result{Payload: []byte(tr.Header["A"][0] + string(tr.Payload))}, nil
	}})
	long := strings.Repeat("x", 900_000)
	r, err := c.Invoke(t.Context(), guest.Trigger{Header: map[string][]string{"A": {long}}, Payload: []byte("end"), Timeout: time.Minute})
	if err != nil || string(r.Payload) != long+"end" {
		t.Errorf("%d bytes came back, %v", len(r.Payload), err)
	}
	if err := c.Deploy(t.Context(), guest.Deploy{ID: "w", Environment: map[string]string{"A": long}}, strings.NewReader("x"), guest.Sink{}); err != nil {
		t.Error(err)
	}
}

// TestManyLongMessages has more payload under way than a link may hold.
func TestManyLongMessages(t *testing.T) {
	c := connectSockets(t, &agent{invoke: func(_ context.Context, tr guest.Trigger) (guest.Result, error) {
		return guest.Result{Payload: tr.Payload[:1]}, nil
	}})
	payload := make([]byte, 1<<20)
	var wg sync.WaitGroup
	for range 300 {
		wg.Go(func() {
			if _, err := c.Invoke(t.Context(), guest.Trigger{Payload: payload, Timeout: time.Minute}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestFunctionsDoNotExit(t *testing.T) {
	c := connect(t, &agent{invoke: echo})
	if err := c.Deploy(t.Context(), guest.Deploy{ID: "f"}, strings.NewReader(""), guest.Sink{}); err != nil {
		t.Fatal(err)
	}
	if err := c.server.Exited("f", guest.Exit{}); err != nil {
		t.Fatal(err)
	}
	await(t, c.Done(), "the link to end")
}

func TestLostLinkErrorsHaveACode(t *testing.T) {
	c := connectSockets(t, &agent{invoke: echo})
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			if i == 100 {
				c.hangUp()
			}
			_, err := c.Invoke(context.Background(), guest.Trigger{Payload: make([]byte, 300_000), Timeout: time.Minute})
			if err != nil && nex.CodeOf(err) != nex.Unavailable {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if _, err := c.Invoke(t.Context(), guest.Trigger{}); !errors.Is(err, guest.ErrNotSent) {
		t.Errorf("on a link that has ended: %v", err)
	}
}

func TestGreetWhoseContextEndsWithTheHello(t *testing.T) {
	for range 300 {
		near, far := net.Pipe()
		s := guest.NewServer(far, &agent{invoke: echo})
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- s.Run(context.Background(), guest.Hello{}) }()
		go cancel()
		c, err := guest.Greet(ctx, near)
		if err == nil {
			if _, err := (peers{Client: c}).Invoke(t.Context(), guest.Trigger{Timeout: time.Minute}); err != nil {
				t.Errorf("greeted, but: %v", err)
			}
			c.Close()
		}
		<-served
	}
}

// Quick calls are worked on by the agent's reader itself; one that is not quick
// must not keep it from reading.
func TestSlowCallsAmongQuickOnes(t *testing.T) {
	freed := make(chan struct{}, 1)
	c := connectSockets(t, &agent{invoke: func(ctx context.Context, tr guest.Trigger) (guest.Result, error) {
		switch tr.Subject {
		case "wait":
			select {
			case <-freed:
			case <-ctx.Done():
				return guest.Result{}, ctx.Err()
			}
		case "free":
			freed <- struct{}{}
		}
		return guest.Result{Payload: tr.Payload}, nil
	}})
	call := func(subject string) {
		if _, err := c.Invoke(t.Context(), guest.Trigger{Subject: subject, Timeout: time.Minute}); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
	for range 50 {
		for range 20 {
			call("quick")
		}
		var wg sync.WaitGroup
		wg.Go(func() { call("wait") })
		wg.Go(func() { call("free") })
		wg.Wait()
	}
}

func TestDeadlineReachesSlowCallOfTheReader(t *testing.T) {
	c := connectSockets(t, &agent{invoke: func(ctx context.Context, tr guest.Trigger) (guest.Result, error) {
		if tr.Subject != "wait" {
			return guest.Result{}, nil
		}
		stopped := make(chan struct{})
		stop := context.AfterFunc(ctx, func() { close(stopped) })
		defer stop()
		<-stopped
		return guest.Result{}, nex.Errorf(nex.Timeout, "%v", ctx.Err())
	}})
	for range 20 {
		if _, err := c.Invoke(t.Context(), guest.Trigger{Timeout: time.Minute}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Invoke(t.Context(), guest.Trigger{Subject: "wait", Timeout: 10 * time.Millisecond})
	if nex.CodeOf(err) != nex.Timeout || err.Error() != context.DeadlineExceeded.Error() {
		t.Errorf("got %v", err)
	}
}

func TestRepliesWithTooManyHeaders(t *testing.T) {
	c := connect(t, &agent{invoke: func(_ context.Context, tr guest.Trigger) (guest.Result, error) {
		return guest.Result{Header: map[string][]string{"A": make([]string, len(tr.Payload))}}, nil
	}})
	for n, want := range map[int]nex.Code{1000: "", 1001: nex.BadReply} {
		_, err := c.Invoke(t.Context(), guest.Trigger{Payload: make([]byte, n), Timeout: time.Minute})
		if got := nex.CodeOf(err); got != want {
			t.Errorf("%d headers: %v", n, err)
		}
	}
}
