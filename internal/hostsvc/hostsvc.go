// Package hostsvc is the node's side of host services: what the code of a
// workload asks of its node, it does with NATS and HTTP.
//
// A [Server] belongs to a node and a [Session] to one workload on it. Whom a
// call comes from is the session it comes on; nothing in a call can change
// that. Buckets are named after the tenant, subjects and addresses go through
// the node's policy, and what a session may have under way is bounded.
//
// Sessions are safe for concurrent use and call each other's way never: nothing
// is locked while NATS or another machine is waited for. No error or answer
// holds a credential, or an address that the caller did not name.
package hostsvc

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/guest"
)

const (
	// openTimeout bounds how long a connection or a bucket may take to open.
	openTimeout = 10 * time.Second
	// flushTimeout bounds how long the end of a connection waits for what it
	// has still to send.
	flushTimeout = 2 * time.Second
)

// Tenant is who asks, as the node knows it.
type Tenant struct {
	Namespace string
	Workload  string // its name
	ID        string
}

// Dial connects to the NATS that workloads share.
type Dial func(context.Context) (*nats.Conn, error)

// Server offers host services to the workloads of one node.
type Server struct {
	cfg      Config
	services map[string]service // those that are offered
	keys     template           // names of key-value buckets
	objects  template           // names of object stores
	egress   egress
	subjects subjects
	refused  func(Tenant, Refusal)

	gate gate
	conn *lazy[*nats.Conn]
}

// method does what is asked of one method of a service.
type method func(context.Context, *call) (guest.Message, error)

// service is the methods of one service.
type service map[string]method

// services are all there are.
var services = map[string]service{
	"kv":          {"get": kvGet, "set": kvSet, "delete": kvDelete, "keys": kvKeys},
	"objectstore": {"get": objectGet, "put": objectPut, "delete": objectDelete, "list": objectList},
	"messaging":   {"publish": publish, "request": request, "requestMany": requestMany},
	"http": {
		"get": fetch, "post": fetch, "put": fetch, "patch": fetch, "delete": fetch, "head": fetch,
	},
}

// New returns a server of what cfg describes. It connects, with dial, when
// somebody first needs that, and then ends the connection when it is closed
// itself. Refusals by policy and limits are told to refused, which must not
// block; of the many that a workload may cause in a second it hears of one.
func New(cfg Config, dial Dial, refused func(Tenant, Refusal)) (*Server, error) {
	s := &Server{cfg: cfg.withDefaults(), refused: refused, services: map[string]service{}}
	if err := s.cfg.check(); err != nil {
		return nil, err
	}
	disabled := map[string]bool{
		"kv": cfg.KV.Disabled, "objectstore": cfg.ObjectStore.Disabled,
		"messaging": cfg.Messaging.Disabled, "http": cfg.HTTP.Disabled,
	}
	for name, methods := range services {
		if !disabled[name] {
			s.services[name] = methods
		}
	}
	// What check accepted can be read.
	s.keys, _ = parseTemplate(s.cfg.KV.BucketName)
	s.objects, _ = parseTemplate(s.cfg.ObjectStore.BucketName)
	s.subjects = subjects{allow: s.cfg.Messaging.Allow, deny: s.cfg.Messaging.Deny}
	s.egress.allow, _ = parseHosts(s.cfg.HTTP.Allow)
	s.egress.deny, _ = parseHosts(s.cfg.HTTP.Deny)
	s.conn = &lazy[*nats.Conn]{gate: &s.gate, open: func(ctx context.Context) (*nats.Conn, error) {
		nc, err := dial(ctx)
		if err != nil {
			return nil, nex.Errorf(nex.Unavailable, "NATS cannot be reached now") // its address is the node's business
		}
		return nc, nil
	}}
	return s, nil
}

// Access is the NATS that a workload's request asks for. What is nil is not
// asked for.
type Access struct {
	NATS      *nex.NATSAccess // behind its host services
	Messaging *nex.NATSAccess // behind messaging, if that is another
}

// Open begins the session of a workload. What it has access to beside what
// everybody has is connected to when that is first needed.
func (s *Server) Open(t Tenant, a Access) *Session { return newSession(s, t, a) }

// Close ends the connection for everybody. Sessions are closed before.
func (s *Server) Close() {
	s.gate.close()
	if nc, ok := s.conn.opened(); ok {
		disconnect(nc)
	}
}

// connect makes the connection that a workload's request asks for, if that can
// be done before ctx ends.
func connect(ctx context.Context, a nex.NATSAccess) (*nats.Conn, error) {
	if err := a.Validate(); err != nil {
		return nil, nex.Errorf(nex.Unavailable, "connect to the workload's host_services: %v", err)
	}
	dialer := &dialer{opening: ctx}
	options := []nats.Option{
		nats.Name("workload-host-services"), nats.Timeout(dialTimeout), nats.SetCustomDialer(dialer), nats.MaxReconnects(-1),
		nats.FlusherTimeout(openTimeout), // how long the server may take to read what is sent
		// What cannot be sent now is an error now, and not sent some time later.
		nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
	if a.JWT != "" {
		options = append(options, nats.UserJWTAndSeed(a.JWT, string(a.Seed)))
	}
	nc, err := nats.Connect(a.URL, options...)
	if err != nil {
		return nil, nex.Errorf(nex.Unavailable, "connect to the workload's host_services: %v", err)
	}
	dialer.complete.Store(true)
	return nc, nil
}

// disconnect sends what waits to be sent and ends a connection.
func disconnect(nc *nats.Conn) {
	if nc.IsConnected() {
		_ = nc.FlushTimeout(flushTimeout) // what cannot be sent by then is lost
	}
	nc.Close()
}

// noService is the answer to who asks for what is not there. The text is that
// of Nex 0.2.7.
func noService(name string) error {
	return nex.Errorf(nex.Unsupported, "No such host service: %.40s", name)
}

func noMethod(service, name string) error {
	return nex.Errorf(nex.Unsupported, "%s", fmt.Sprintf("host service %s has no method %.40q", service, name))
}
