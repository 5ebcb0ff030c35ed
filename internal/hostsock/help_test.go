package hostsock_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"nex/internal/hostsock"
	"nex/internal/nextest"
	"nex/internal/runtime"
)

func TestMain(m *testing.M) { nextest.Main(m) }

// question is one call that a host was asked.
type question struct {
	service, method string
	runtime.Message
}

// fake is a host whose answers a test gives.
type fake struct {
	answer func(ctx context.Context, q question) (runtime.Message, error)

	mu    sync.Mutex
	asked []question
}

func (f *fake) Call(ctx context.Context, service, method string, m runtime.Message) (runtime.Message, error) {
	q := question{service, method, m}
	f.mu.Lock()
	f.asked = append(f.asked, q)
	f.mu.Unlock()
	return f.answer(ctx, q)
}

// last returns the latest question, and forgets all.
func (f *fake) last() question {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return question{}
	}
	q := f.asked[len(f.asked)-1]
	f.asked = nil
	return q
}

// answering returns a fake that always answers m or err.
func answering(m runtime.Message, err error) *fake {
	return &fake{answer: func(context.Context, question) (runtime.Message, error) { return m, err }}
}

// echo answers with the payload and headers it is given.
func echo() *fake {
	return &fake{answer: func(_ context.Context, q question) (runtime.Message, error) {
		return runtime.Message{Header: q.Header, Payload: q.Payload}, nil
	}}
}

// silent returns a fake that answers when nobody waits any more, and two
// channels that tell when it is asked and when it has given up.
func silent() (f *fake, asked, ended chan struct{}) {
	asked, ended = make(chan struct{}, 1000), make(chan struct{}, 1000)
	return &fake{answer: func(ctx context.Context, _ question) (runtime.Message, error) {
		asked <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return runtime.Message{}, ctx.Err()
	}}, asked, ended
}

type listen func(string, runtime.Host, int64, runtime.Log) (*hostsock.Server, error)

const maxBody = 1 << 20

// serve runs a server until the test ends.
func serve(t testing.TB, listen listen, h runtime.Host) *hostsock.Server {
	t.Helper()
	s, err := listen(filepath.Join(t.TempDir(), "host"), h, maxBody, func(_ slog.Level, text string) { t.Error(text) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// client returns a client of a server.
func client(t testing.TB, s *hostsock.Server) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.Path())
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// reply is what a client got.
type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a request whose headers are pairs of name and value.
func do(t testing.TB, c *http.Client, method, path, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://nex"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for ; len(header) > 1; header = header[2:] {
		r.Header.Add(header[0], header[1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{resp.StatusCode, resp.Header, string(got)}
}
