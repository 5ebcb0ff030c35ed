// Package hostsock offers host services to native services: an HTTP server on a
// Unix socket of the service's own, so that any language, and curl, can ask.
// docs/host-services.md lists the requests.
//
// A [Server] serves as many calls at once as it takes connections, and is safe
// for concurrent use. It decides nothing: who may ask for what is the node's to
// judge, and who can reach the socket is whoever runs as the same user. What a
// client does or fails to do costs the client: bodies, headers and the time they
// may take are bounded.
package hostsock

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"nex/internal/runtime"
)

// Variable names the environment variable of a service that holds the path of
// its socket.
const Variable = "NEX_HOST_SERVICES"

// maxPath is how long the path of a Unix socket may be on every system, in
// bytes.
const maxPath = 103

// limits bound what clients may hold.
type limits struct {
	connections int           // more of them wait until one ends
	header      int           // bytes of a request's line and headers
	headerTime  time.Duration // from a request's first byte to the end of its headers
	idle        time.Duration // between two requests
	transfer    time.Duration // for a request's body to come, and for an answer to be taken
}

// usual are the limits of every service: as many connections as calls that a
// node lets one workload have under way, and then some.
var usual = limits{
	connections: 512, header: 64 << 10, headerTime: 10 * time.Second, idle: 30 * time.Second, transfer: 5 * time.Minute,
}

// Server answers the calls of one service.
type Server struct {
	path    string
	host    runtime.Host
	maxBody int64
	limits  limits

	http  *http.Server
	stop  context.CancelFunc // ends the calls under way
	work  sync.WaitGroup     // the accepting goroutine, and one per connection
	close func()             // runs once
}

// Listen makes a socket at path, in a directory that only this user can enter,
// and serves it. A request's body may have maxBody bytes; log gets what goes
// wrong in the server itself.
//
// Where the path is too long for a socket, Linux has another name for it, see
// [Server.Path]; elsewhere that is an error.
func Listen(path string, h runtime.Host, maxBody int64, log runtime.Log) (*Server, error) {
	s := &Server{host: h, maxBody: maxBody, limits: usual}
	return s, s.listen(path, log)
}

func (s *Server) listen(path string, logTo runtime.Log) error {
	name, release, err := shorten(path)
	if err != nil {
		return fmt.Errorf("make socket for host services: %w", err)
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		release()
		return fmt.Errorf("make socket for host services: %w", err)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		err = errors.Join(err, l.Close())
		release()
		return fmt.Errorf("make socket for host services: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s.path, s.stop = name, stop
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		MaxHeaderBytes:    s.limits.header,
		ReadHeaderTimeout: s.limits.headerTime,
		IdleTimeout:       s.limits.idle,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         func(c net.Conn, state http.ConnState) { s.count(ctx, c, state) },
		ErrorLog:          log.New(lines(logTo), "", 0),
	}
	s.work.Go(func() { _ = s.http.Serve(netutil.LimitListener(l, s.limits.connections)) }) // until Close
	s.close = sync.OnceFunc(func() { s.end(); release() })
	return nil
}

// count keeps track of connections. One that came while the server was being
// closed is nobody's otherwise.
func (s *Server) count(ctx context.Context, c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.work.Add(1)
		if ctx.Err() != nil {
			_ = c.Close() // nobody waits for an answer
		}
	case http.StateClosed:
		s.work.Done()
	}
}

// Path is where clients find the socket: the path it was made at, or a shorter
// name of it that is good as long as the server runs.
func (s *Server) Path() string { return s.path }

// Close removes the socket, ends the calls under way and returns when nothing
// of them is left. It may be called more than once.
func (s *Server) Close() { s.close() }

func (s *Server) end() {
	s.stop()
	_ = s.http.Close() // the listener's error is nobody's business any more
	s.work.Wait()
}

// lines passes on what [http.Server] has to say.
type lines runtime.Log

func (l lines) Write(p []byte) (int, error) {
	l(slog.LevelError, "host services: "+strings.TrimSpace(string(p)))
	return len(p), nil
}
