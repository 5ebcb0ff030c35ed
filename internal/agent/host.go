package agent

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"time"

	"nex/internal/guest"
	"nex/internal/hostsock"
	"nex/internal/runtime"
)

// hostTime is how long a host service may take where the caller does not say:
// longer than any of them does by itself, so that a call ends even if its
// answer is lost.
const hostTime = time.Minute

// host reaches the host services of one workload over the guest link.
type host struct {
	server *guest.Server
	id     string
}

var _ runtime.Host = host{}

// Call implements [runtime.Host].
func (h host) Call(ctx context.Context, service, method string, m runtime.Message) (runtime.Message, error) {
	timeout := hostTime
	if due, ok := ctx.Deadline(); ok {
		timeout = time.Until(due)
	}
	answer, err := h.server.Host(ctx, guest.HostCall{ID: h.id, Timeout: timeout, Service: service, Method: method, Message: guest.Message(m)})
	return runtime.Message(answer), err
}

// hosted is a service with a socket for its host services, which ends when the
// service has ended: until then it may have something to store.
type hosted struct {
	runtime.Service
	socket *hostsock.Server
}

var _ runtime.Service = hosted{}

// Wait implements [runtime.Service].
func (h hosted) Wait(ctx context.Context) (runtime.Exit, error) {
	exit, err := h.Service.Wait(ctx)
	if err == nil {
		h.socket.Close()
	}
	return exit, err
}

// Stop implements [runtime.Service].
func (h hosted) Stop(ctx context.Context) error {
	defer h.socket.Close()
	return h.Service.Stop(ctx)
}

// withHost starts a service that finds its socket in its environment. One that
// cannot have a socket runs without, and its log says so.
func (a *agent) withHost(d guest.Deploy, dir string, log runtime.Log, start func(env map[string]string) (runtime.Service, error)) (runtime.Service, error) {
	socket, err := hostsock.Listen(filepath.Join(dir, "host"), host{a.server, d.ID}, guest.MaxMessage, log)
	if err != nil {
		log(slog.LevelWarn, "this service has no host services: "+err.Error())
		return start(d.Environment)
	}
	env := map[string]string{}
	maps.Copy(env, d.Environment)
	env[hostsock.Variable] = socket.Path()
	service, err := start(env)
	if err != nil {
		socket.Close()
		return nil, err
	}
	return hosted{service, socket}, nil
}
