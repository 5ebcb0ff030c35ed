package agent_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"nex"
	"nex/internal/guest"
	"nex/internal/nextest"
)

// listen is a service with a port for HTTP, which it prints.
func listen() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.RequestURI() {
		case "/live?deep=%2f":
		case "/moved":
			http.Redirect(w, r, "/gone", http.StatusFound)
		case "/silent":
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	return 0
}

func TestProbe(t *testing.T) {
	c, _ := start(t)
	content := service(t, "listen")
	sum := sha256.Sum256([]byte(content))
	lines := make(chan string, 10)
	err := c.Deploy(t.Context(), guest.Deploy{ID: "w", Name: "w", File: "w", Type: nex.Native, SHA256: hex.EncodeToString(sum[:])},
		strings.NewReader(content), guest.Sink{Log: func(_ slog.Level, text string) { lines <- text }, Exited: func(guest.Exit) {}})
	if err != nil {
		t.Fatal(err)
	}
	line := nextest.Await(t, lines, "the port")
	port, err := strconv.Atoi(line)
	if err != nil {
		t.Fatalf("port %q", line)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for name, p := range map[string]struct {
		guest.Probe
		code  nex.Code
		words string
	}{
		"port":                 {guest.Probe{ID: "w", Port: port}, "", ""},
		"path":                 {guest.Probe{ID: "w", Port: port, Path: "/live?deep=%2f"}, "", ""},
		"path that has moved":  {guest.Probe{ID: "w", Port: port, Path: "/moved"}, "", ""},
		"path that is not yet": {guest.Probe{ID: "w", Port: port, Path: "/other"}, nex.Unavailable, "answers 503 Service Unavailable"},
		"silent path":          {guest.Probe{ID: "w", Port: port, Path: "/silent", TimeoutMS: 100}, nex.Timeout, "within 100 ms"},
		"closed port":          {guest.Probe{ID: "w", Port: closed.Addr().(*net.TCPAddr).Port}, nex.Unavailable, "does not answer"},
		"closed port, path":    {guest.Probe{ID: "w", Port: closed.Addr().(*net.TCPAddr).Port, Path: "/"}, nex.Unavailable, "does not answer"},
		"no service":           {guest.Probe{ID: "x", Port: port}, nex.NotFound, "no service x"},
	} {
		if p.TimeoutMS == 0 {
			p.TimeoutMS = 10_000
		}
		err := c.Probe(t.Context(), p.Probe)
		if nex.CodeOf(err) != p.code || err != nil && !strings.Contains(err.Error(), p.words) {
			t.Errorf("%s: %v, want %s %q", name, err, p.code, p.words)
		}
	}
}
