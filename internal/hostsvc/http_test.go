package hostsvc

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
)

// local lets workloads reach test servers.
var local = HTTP{Allow: []string{"127.0.0.0/8", "::1"}}

// website is an HTTP server with a path for everything that tests ask of one.
func website(t testing.TB) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for name, values := range r.Header {
			w.Header()["Echo-"+name] = values
		}
		w.Header().Set("Echo-Host", r.Host)
		w.Header().Set("Echo-Line", r.Method+" "+r.URL.RequestURI())
		w.Header()["X-Multi"] = []string{"a", "b"}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(body)
	})
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("url"))
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscan(r.URL.Query().Get("n"), &n)
		if r.URL.Query().Has("chunked") {
			w.(http.Flusher).Flush()
		}
		_, _ = w.Write(allBytes(n))
	})
	mux.HandleFunc("/bomb", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		piece := make([]byte, 1<<20)
		for range 8 {
			if _, err := z.Write(piece); err != nil {
				return
			}
		}
		_ = z.Close()
	})
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/stuck", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("half"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/cut", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

func TestHTTP(t *testing.T) {
	web := website(t)
	s := newRig(t, Config{HTTP: local}).open(t, "n", "w")
	for _, method := range []string{"get", "post", "put", "patch", "delete", "head"} {
		m, err := s.Serve(t.Context(), guest.HostCall{Service: "http", Method: method, Message: guest.Message{
			Args: args("url", web.URL+"/echo?b=1&c=%20"), Payload: allBytes(256),
			Header: map[string][]string{"content-type": {"x/y"}, "Host": {"evil"}, "transfer-encoding": {"chunked"}, "te": {"trailers"}, "X": {"1", "2"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		h := http.Header(m.Header)
		if m.Args["status"] != "201" || m.Args["url"] != web.URL+"/echo?b=1&c=%20" || len(h["X-Multi"]) != 2 || len(h["Echo-X"]) != 2 ||
			h.Get("Echo-Line") != strings.ToUpper(method)+" /echo?b=1&c=%20" || h.Get("Echo-Content-Type") != "x/y" ||
			h.Get("Echo-User-Agent") != "nex" || h.Get("Echo-Te") != "" || h.Get("Echo-Host") != strings.TrimPrefix(web.URL, "http://") {
			t.Errorf("%s: %v", method, m)
		}
		if want := allBytes(256); method == "head" && len(m.Payload) != 0 || method != "head" && !bytes.Equal(m.Payload, want) {
			t.Errorf("%s: %d bytes", method, len(m.Payload))
		}
	}
	large := allBytes(8 << 20)
	if m := do(t, s, "http.post", args("url", web.URL+"/echo"), large); !bytes.Equal(m.Payload, large) {
		t.Errorf("%d bytes came back", len(m.Payload))
	}
	m, err := s.Serve(t.Context(), guest.HostCall{Service: "http", Method: "get", Message: guest.Message{
		Args: args("url", web.URL+"/echo"), Header: map[string][]string{"User-Agent": {"mine"}, "Cookie": {"a=b"}},
	}})
	if h := http.Header(m.Header); err != nil || h.Get("Echo-User-Agent") != "mine" || h.Get("Echo-Cookie") != "a=b" {
		t.Errorf("%v, %v", m, err)
	}
	user := strings.Replace(web.URL, "http://", "http://name:secret@", 1)
	if m := do(t, s, "http.get", args("url", user+"/echo"), nil); strings.Contains(m.Args["url"], "secret") || http.Header(m.Header).Get("Echo-Authorization") == "" {
		t.Errorf("%v", m)
	}
}

func TestHTTPRefusals(t *testing.T) {
	web := website(t)
	closed := httptest.NewServer(nil)
	closed.Close()
	s := newRig(t, Config{HTTP: local}).open(t, "n", "w")
	for name, c := range map[string]struct {
		args  map[string]string
		code  nex.Code
		words string
	}{
		"no URL":         {nil, nex.Invalid, "url is required"},
		"no scheme":      {args("url", "example.org/x"), nex.Invalid, "http://"},
		"another scheme": {args("url", "ftp://example.org"), nex.Invalid, "http://"},
		"a file":         {args("url", "file:///etc/passwd"), nex.Invalid, "http://"},
		"no host":        {args("url", "http:///x"), nex.Invalid, "no host"},
		"a port alone":   {args("url", "http://:80/"), nex.Invalid, "no host"},
		"no URL at all":  {args("url", "http://[::1"), nex.Invalid, "understood"},
		"a line more":    {args("url", web.URL+"/\r\nx"), nex.Invalid, "understood"},
		"a long one":     {args("url", web.URL+"/"+strings.Repeat("x", maxURL)), nex.Invalid, "the most"},
		"timeout":        {args("url", web.URL, "timeout_ms", "x"), nex.Invalid, "timeout_ms"},
		"redirect":       {args("url", web.URL, "redirect", "x"), nex.Invalid, "follow, manual or error"},
		"silent":         {args("url", web.URL+"/silent", "timeout_ms", "30"), nex.Timeout, "in time"},
		"stuck":          {args("url", web.URL+"/stuck", "timeout_ms", "30"), nex.Timeout, "in time"},
		"cut":            {args("url", web.URL+"/cut"), nex.Unavailable, "cannot be reached"},
		"nobody there":   {args("url", closed.URL), nex.Unavailable, "refused"},
		"no such port":   {args("url", "http://127.0.0.1:99999"), nex.Unavailable, "failed"},
	} {
		t.Run(name, func(t *testing.T) { fails(t, s, "http.get", c.args, nil, c.code, c.words) })
	}
	for _, url := range []string{"http://user:pass-word@[::1", "http://user:pass-word@a.test:b/"} {
		if _, err := ask(t.Context(), s, "http.get", args("url", url), nil); nex.CodeOf(err) != nex.Invalid || strings.Contains(err.Error(), "pass-word") {
			t.Errorf("%v", err)
		}
	}
	for _, name := range []string{"", "a b", "a:b", "a\r\nb", "ü", "a(b"} {
		_, err := s.Serve(t.Context(), guest.HostCall{Service: "http", Method: "get", Message: guest.Message{
			Args: args("url", web.URL+"/echo"), Header: map[string][]string{name: {"v"}},
		}})
		if nex.CodeOf(err) != nex.Invalid {
			t.Errorf("header %q: %v", name, err)
		}
	}
	_, err := s.Serve(t.Context(), guest.HostCall{Service: "http", Method: "get", Message: guest.Message{
		Args: args("url", web.URL+"/echo"), Header: map[string][]string{"X": {"a\r\nB: c"}},
	}})
	if nex.CodeOf(err) != nex.Invalid {
		t.Errorf("two headers in one: %v", err)
	}
}

// What workloads must not reach they do not, however they name it.
func TestEgress(t *testing.T) {
	web := website(t)
	port := web.Listener.Addr().(*net.TCPAddr).Port
	r := newRig(t, Config{})
	s := r.open(t, "n", "w")
	for _, host := range []string{
		"127.0.0.1", "LocalHost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.1.2.3", "169.254.169.254", "10.0.0.1", "192.168.0.1", "[fe80::1%25lo]", "[64:ff9b::7f00:1]",
	} {
		fails(t, s, "http.get", args("url", fmt.Sprintf("http://%s:%d/echo", host, port), "timeout_ms", "5000"), nil, nex.Denied, "does not let workloads reach")
	}
	// Forms of addresses that only some resolvers know are not reached either.
	for _, host := range []string{"localhost.", "127.1", "2130706433", "0x7f.1", "017700000001", "①②⑦.0.0.1"} {
		if m, err := ask(t.Context(), s, "http.get", args("url", fmt.Sprintf("http://%s:%d/echo", host, port), "timeout_ms", "5000"), nil); err == nil {
			t.Errorf("%s answered %v", host, m)
		}
	}
	fails(t, s, "http.get", args("url", "http://169.254.169.254/latest"), nil, nex.Denied, "link-local")
	fails(t, s, "http.get", args("url", r.nats.ClientURL()), nil, nex.Invalid, "")
	fails(t, s, "http.get", args("url", strings.Replace(r.nats.ClientURL(), "nats", "http", 1)), nil, nex.Denied, "loopback")
	if _, err := ask(t.Context(), s, "http.get", args("url", "http://localhost/"), nil); strings.Contains(err.Error(), "127.0.0.1") || strings.Contains(err.Error(), "::1") {
		t.Errorf("tells the address: %v", err)
	}
	if s.Refused() < 15 || len(r.told()) == 0 || r.told()[0].Code != nex.Denied || r.told()[0].Service != "http" {
		t.Errorf("%d refused, %v", s.Refused(), r.told())
	}

	named := newRig(t, Config{HTTP: HTTP{Allow: []string{"localhost"}}}).open(t, "n", "w")
	do(t, named, "http.get", args("url", fmt.Sprintf("http://LocalHost:%d/echo", port)), nil)
	fails(t, named, "http.get", args("url", web.URL+"/echo"), nil, nex.Denied, "loopback")
	// A connection that is open already is no way around.
	fails(t, named, "http.get", args("url", fmt.Sprintf("http://localhost:%d/to?url=%s", port, url.QueryEscape(web.URL+"/echo"))), nil, nex.Denied, "loopback")

	both := newRig(t, Config{HTTP: HTTP{Allow: local.Allow, Deny: []string{"localhost", "127.0.0.2"}}}).open(t, "n", "w")
	do(t, both, "http.get", args("url", web.URL+"/echo"), nil)
	fails(t, both, "http.get", args("url", fmt.Sprintf("http://localhost:%d/echo", port)), nil, nex.Denied, "localhost")
	fails(t, both, "http.get", args("url", fmt.Sprintf("http://127.0.0.2:%d/echo", port)), nil, nex.Denied, "127.0.0.2")
}

func TestProxiesOfTheNodeAreNotUsed(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	s := newRig(t, Config{HTTP: local}).open(t, "n", "w")
	fails(t, s, "http.get", args("url", "http://192.0.2.1/"), nil, nex.Denied, "192.0.2.1")
}

func TestRedirects(t *testing.T) {
	web, away := website(t), website(t)
	r := newRig(t, Config{HTTP: HTTP{Allow: local.Allow, Deny: []string{"127.0.0.2"}}})
	s := r.open(t, "n", "w")
	to := func(where string) string { return web.URL + "/to?url=" + url.QueryEscape(where) }
	m := do(t, s, "http.post", args("url", to(away.URL+"/echo")), []byte("again"))
	if m.Args["url"] != away.URL+"/echo" || string(m.Payload) != "again" {
		t.Errorf("%v", m)
	}
	m = do(t, s, "http.get", args("url", to(away.URL+"/echo"), "redirect", "manual"), nil)
	if m.Args["status"] != "307" || m.Header["Location"][0] != away.URL+"/echo" {
		t.Errorf("%v", m)
	}
	fails(t, s, "http.get", args("url", to(away.URL+"/echo"), "redirect", "error"), nil, nex.Unavailable, "redirect")
	fails(t, s, "http.get", args("url", web.URL+"/loop"), nil, nex.Unavailable, "more than 10 redirects")
	fails(t, s, "http.get", args("url", to("http://127.0.0.2/")), nil, nex.Denied, "127.0.0.2")
	fails(t, s, "http.get", args("url", to("http://169.254.169.254/latest")), nil, nex.Denied, "169.254.169.254")
	fails(t, s, "http.get", args("url", to("file:///etc/passwd")), nil, nex.Denied, "http://")
	fails(t, s, "http.get", args("url", to("ftp://x/")), nil, nex.Denied, "http://")

	call := guest.HostCall{Service: "http", Method: "get", Message: guest.Message{
		Args:   args("url", to(strings.Replace(away.URL, "127.0.0.1", "localhost", 1)+"/echo")),
		Header: map[string][]string{"Authorization": {"secret"}, "Cookie": {"secret"}, "X": {"kept"}},
	}}
	m, err := s.Serve(t.Context(), call)
	if h := http.Header(m.Header); err != nil || h.Get("Echo-Authorization") != "" || h.Get("Echo-Cookie") != "" || h.Get("Echo-X") != "kept" {
		t.Errorf("%v, %v", m, err)
	}
}

func TestLargeBodies(t *testing.T) {
	web := website(t)
	cfg := local
	cfg.MaxBody = 1 << 20
	r := newRig(t, Config{HTTP: cfg})
	s := r.open(t, "n", "w")
	for _, how := range []string{"", "&chunked"} {
		if m := do(t, s, "http.get", args("url", web.URL+"/bytes?n=1048576"+how), nil); len(m.Payload) != 1<<20 {
			t.Errorf("%d bytes", len(m.Payload))
		}
		fails(t, s, "http.get", args("url", web.URL+"/bytes?n=1048577"+how), nil, nex.TooLarge, "longer than 1048576")
	}
	fails(t, s, "http.get", args("url", web.URL+"/bomb"), nil, nex.TooLarge, "longer than 1048576")
	if held := s.held.Load(); held != 0 {
		t.Errorf("%d bytes are held", held)
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }))
	web.EnableHTTP2 = true
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	defer web.Close()
	s := newRig(t, Config{HTTP: local}).open(t, "n", "w")
	// The certificate has no such name.
	fails(t, s, "http.get", args("url", strings.Replace(web.URL, "127.0.0.1", "localhost", 1)), nil, nex.Unavailable, "certificate")
	if runtime.GOOS != "linux" {
		return // the certificate is not trusted, see trustTestServers
	}
	if m := do(t, s, "http.get", args("url", web.URL), nil); string(m.Payload) != "HTTP/2.0" {
		t.Errorf("%v", m)
	}
}

// Connections are kept for the next call of the same session, and for nobody
// else.
func TestConnectionsAreNotShared(t *testing.T) {
	connections := make(chan net.Conn, 100)
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	web.Config.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections <- c
		}
	}
	web.Start()
	defer web.Close()
	r := newRig(t, Config{HTTP: local})
	for range 2 {
		s := r.open(t, "n", "w")
		for range 5 {
			do(t, s, "http.get", args("url", web.URL), nil)
		}
	}
	if n := len(connections); n != 2 {
		t.Errorf("%d connections", n)
	}
}

func TestHTTPEndsWithItsCall(t *testing.T) {
	web := website(t)
	s := newRig(t, Config{HTTP: local}).open(t, "n", "w")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := ask(ctx, s, "http.get", args("url", web.URL+"/silent"), nil); nex.CodeOf(err) != nex.Timeout {
		t.Errorf("%v", err)
	}
}
