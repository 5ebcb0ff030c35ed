package hostsock_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/hostsock"
	"nex/internal/nextest"
	nexruntime "nex/internal/runtime"
)

// dial opens a connection and says something on it.
func dial(t *testing.T, s *hostsock.Server, say string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(nextest.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ended checks that the server ends a connection in its own time.
func ended(t *testing.T, conn net.Conn) (said string) {
	t.Helper()
	got, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the server keeps the connection")
	}
	return string(got)
}

func TestClientsThatGetStuck(t *testing.T) {
	s := serve(t, hostsock.ListenShort, echo())
	for name, tc := range map[string]struct{ say, status string }{
		"nothing":         {"", "|408"},
		"half a line":     {"GET /v1/k", "400"},
		"half a header":   {"GET /v1/kv HTTP/1.1\r\nHost: n", "|408"},
		"half a body":     {"PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nContent-Length: 9\r\n\r\nhalf", "400"},
		"half a chunk":    {"PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "400"},
		"an unread body":  {"PUT /v1/nothing HTTP/1.1\r\nHost: nex\r\nContent-Length: 9\r\n\r\nhalf", "|408|501"}, // it may be answered before the rest is missed
		"then nothing":    {"GET /v1/kv HTTP/1.1\r\nHost: nex\r\n\r\n", "200"},
		"bad percent":     {"GET /v1/kv/%zz HTTP/1.1\r\nHost: nex\r\n\r\n", "400"},
		"long header":     {"GET /v1/kv HTTP/1.1\r\nHost: nex\r\nNex-Header: A:" + strings.Repeat("a", 16<<10) + "\r\n\r\n", "431"},
		"not HTTP":        {"\x16\x03\x01\x00\r\n\r\n", "400"},
		"another HTTP":    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "501"},
		"a negative size": {"PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nContent-Length: -1\r\n\r\n", "400"},
		"two sizes":       {"PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ended(t, dial(t, s, tc.say))
			status, _, _ := strings.Cut(strings.TrimPrefix(got, "HTTP/1.1 "), " ")
			if !slices.Contains(strings.Split(tc.status, "|"), status) {
				t.Errorf("answer %.200q, want status %q", got, tc.status)
			}
		})
	}
}

// TestClientThatDoesNotRead: an answer nobody takes does not stay.
func TestClientThatDoesNotRead(t *testing.T) {
	large := nexruntime.Message{Payload: make([]byte, 8<<20)}
	s := serve(t, hostsock.ListenShort, answering(large, nil))
	conn := dial(t, s, "GET /v1/kv/a HTTP/1.1\r\nHost: nex\r\n\r\n")
	if _, err := bufio.NewReaderSize(conn, 1).ReadByte(); err != nil { // the answer is on its way
		t.Fatal(err)
	}
	closed := make(chan error, 1)
	go func() {
		for { // writing fails once the server has ended the connection
			if _, err := conn.Write([]byte("x")); err != nil {
				closed <- err
				return
			}
			<-time.After(time.Millisecond)
		}
	}()
	if err := nextest.Await(t, closed, "the server to give up"); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server keeps the connection")
	}
}

func TestLargeBodies(t *testing.T) {
	f := echo()
	s := serve(t, hostsock.Listen, f)
	c := client(t, s)
	fits := strings.Repeat("x", maxBody)
	if got := do(t, c, http.MethodPost, "/v1/messaging/request?subject=a", fits); got.status != 200 || got.body != fits {
		t.Errorf("the largest: %d, %d bytes", got.status, len(got.body))
	}
	f.last()
	refused(t, do(t, c, http.MethodPut, "/v1/kv/a", fits+"x"), nex.TooLarge, "1048576 bytes")
	// One that does not say how large it is, and never ends.
	conn := dial(t, s, "PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() {
		piece := "10000\r\n" + strings.Repeat("x", 1<<16) + "\r\n"
		for {
			if _, err := io.WriteString(conn, piece); err != nil {
				return
			}
		}
	}()
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "413") {
		t.Errorf("endless: %q, %v", line, err)
	}
	// One that says so is not waited for.
	another := dial(t, s, "PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nContent-Length: 99999999999\r\n\r\n")
	if got, err := bufio.NewReader(another).ReadString('\n'); err != nil || !strings.Contains(got, "413") {
		t.Errorf("announced: %q, %v", got, err)
	}
	if q := f.last(); q.service != "" {
		t.Errorf("the host was asked %s.%s", q.service, q.method)
	}
}

// TestManyConnections: more connections than are served at once do no harm, and
// a request that comes with them has its turn.
func TestManyConnections(t *testing.T) {
	s := serve(t, hostsock.ListenShort, echo())
	for range 200 {
		dial(t, s, "")
	}
	if got := do(t, client(t, s), http.MethodGet, "/v1/kv/a", ""); got.status != 200 {
		t.Errorf("status %d", got.status)
	}
}

func TestThousandCallsAtOnce(t *testing.T) {
	s := serve(t, hostsock.Listen, echo())
	c := client(t, s)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			body := fmt.Sprint("call ", i)
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://nex/v1/messaging/request?subject=a", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			resp, err := c.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != body {
				t.Errorf("%d: %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestAllBytes(t *testing.T) {
	var all bytes.Buffer
	for i := range 256 {
		all.WriteByte(byte(i))
	}
	body := strings.Repeat(all.String(), 1000)
	if got := do(t, client(t, serve(t, hostsock.Listen, echo())), http.MethodPost, "/v1/messaging/request?subject=a", body); got.body != body {
		t.Errorf("%d bytes of %d", len(got.body), len(body))
	}
}

// TestClientThatLeaves: a call ends with the client that wanted it.
func TestClientThatLeaves(t *testing.T) {
	f, asked, given := silent()
	s := serve(t, hostsock.Listen, f)
	conn := dial(t, s, "PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nContent-Length: 2\r\n\r\nhi")
	nextest.Await(t, asked, "the call")
	_ = conn.Close()
	nextest.Await(t, given, "the call to end")
}

// TestSlowCall: an answer may take longer than bodies may.
func TestSlowCall(t *testing.T) {
	f := &fake{answer: func(ctx context.Context, _ question) (nexruntime.Message, error) {
		select {
		case <-time.After(time.Second): // more than three times what ListenShort allows
		case <-ctx.Done():
		}
		return nexruntime.Message{}, ctx.Err()
	}}
	c := client(t, serve(t, hostsock.ListenShort, f))
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		if got := do(t, c, method, "/v1/kv/a", ""); got.status/100 != 2 {
			t.Errorf("%s: %d %s", method, got.status, got.body)
		}
	}
}

// TestTimeouts: a call is waited for a little longer than it says itself.
func TestTimeouts(t *testing.T) {
	for asked, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "0": 0, "2000": 2 * time.Second, "9223372036854775807": 15 * time.Minute, "99999999999999999999": 0,
	} {
		var got time.Duration
		f := &fake{answer: func(ctx context.Context, _ question) (nexruntime.Message, error) {
			if due, ok := ctx.Deadline(); ok {
				got = time.Until(due)
			}
			return nexruntime.Message{}, nil
		}}
		path := "/v1/messaging/request?subject=a"
		if asked != "" {
			path += "&timeout_ms=" + asked
		}
		do(t, client(t, serve(t, hostsock.Listen, f)), http.MethodPost, path, "")
		if want == 0 && got != 0 || want != 0 && (got < want || got > want+5*time.Second) {
			t.Errorf("timeout_ms=%s: %s", asked, got)
		}
	}
}

func TestCloseEndsCalls(t *testing.T) {
	const calls = 20
	asked, given := make(chan struct{}, calls), make(chan struct{}, calls)
	f := &fake{answer: func(ctx context.Context, _ question) (nexruntime.Message, error) {
		asked <- struct{}{}
		<-ctx.Done()
		<-time.After(50 * time.Millisecond) // it takes its time to end
		given <- struct{}{}
		return nexruntime.Message{}, ctx.Err()
	}}
	s := serve(t, hostsock.Listen, f)
	idle := dial(t, s, "")
	for i := range calls {
		dial(t, s, fmt.Sprintf("GET /v1/kv/%d HTTP/1.1\r\nHost: nex\r\n\r\n", i))
	}
	half := dial(t, s, "PUT /v1/kv/a HTTP/1.1\r\nHost: nex\r\nContent-Length: 9\r\n\r\nhalf")
	for range calls {
		nextest.Await(t, asked, "a call")
	}
	s.Close()
	if len(given) != calls {
		t.Errorf("Close returned while %d of %d calls were under way", calls-len(given), calls)
	}
	ended(t, idle)
	ended(t, half)
	if _, err := os.Lstat(s.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	if conn, err := net.Dial("unix", s.Path()); err == nil {
		_ = conn.Close()
		t.Error("somebody listens")
	}
	s.Close()
}

// TestCloseWhileClientsCome: no connection is forgotten that comes just then.
func TestCloseWhileClientsCome(t *testing.T) {
	for range 5 {
		s := serve(t, hostsock.Listen, echo())
		var wg sync.WaitGroup
		began := make(chan struct{}, 4)
		for range 4 {
			wg.Go(func() {
				for first := true; ; first = false {
					conn, err := net.Dial("unix", s.Path())
					if err != nil {
						return
					}
					defer conn.Close()
					if first {
						began <- struct{}{}
					}
				}
			})
		}
		nextest.Await(t, began, "a connection")
		closed := make(chan struct{})
		go func() { defer close(closed); s.Close() }()
		select {
		case <-closed:
		case <-time.After(5 * time.Second): // silent clients are ended after 10
			t.Fatal("Close waits for clients")
		}
		wg.Wait()
	}
}

func TestSocketIsPrivate(t *testing.T) {
	s := serve(t, hostsock.Listen, echo())
	info, err := os.Lstat(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %s", info.Mode())
	}
}

func TestPathThatIsTooLong(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "host")
	s, err := hostsock.Listen(path, echo(), maxBody, func(slog.Level, string) {})
	if runtime.GOOS != "linux" {
		if err == nil || !strings.Contains(err.Error(), "at most 103 bytes") {
			t.Errorf("got %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.Path()) > 103 || !filepath.IsAbs(s.Path()) {
		t.Errorf("path %s", s.Path())
	}
	if got := do(t, client(t, s), http.MethodGet, "/v1/kv/a", ""); got.status != 200 {
		t.Errorf("status %d", got.status)
	}
	s.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestListenWhereThatIsImpossible(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		taken, filepath.Join(dir, "missing", "host"), filepath.Join(dir, strings.Repeat("missing/", 30), "host"),
		filepath.Join(dir, strings.Repeat("n", 200)),
	} {
		s, err := hostsock.Listen(path, echo(), maxBody, func(slog.Level, string) {})
		if err == nil {
			s.Close()
			t.Errorf("listens at %s", path)
		} else if !strings.HasPrefix(err.Error(), "make socket for host services: ") {
			t.Errorf("error %v", err)
		}
	}
}
