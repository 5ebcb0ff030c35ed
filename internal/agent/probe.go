package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"nex"
	"nex/internal/guest"
)

// loopback are the addresses where a service of this machine may listen.
var loopback = []string{"127.0.0.1", "::1"}

// Probe implements [guest.Handler].
func (a *agent) Probe(ctx context.Context, p guest.Probe) error {
	a.mu.Lock()
	w := a.workloads[p.ID]
	a.mu.Unlock()
	if w == nil || w.service == nil {
		return nex.Errorf(nex.NotFound, "no service %s on this machine", p.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.TimeoutMS)*time.Millisecond)
	defer cancel()
	if p.Path == "" {
		conn, err := dialLoopback(ctx, p.Port)
		if err != nil {
			return silent(ctx, p, err)
		}
		return conn.Close()
	}
	return get(ctx, p)
}

// dialLoopback connects to whichever address the service listens on.
func dialLoopback(ctx context.Context, port int) (net.Conn, error) {
	var errs []error
	for _, host := range loopback {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// get asks by HTTP, once and without following redirects.
func get(ctx context.Context, p guest.Probe) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost:"+strconv.Itoa(p.Port), nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	r.URL.Opaque = p.Path // as it is
	r.Header.Set("User-Agent", "nex")
	transport := &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialLoopback(ctx, p.Port) },
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return silent(ctx, p, err)
	}
	_ = answer.Body.Close() // not read
	if answer.StatusCode >= http.StatusBadRequest {
		return nex.Errorf(nex.Unavailable, "%s on port %d answers %.64s", p.Path, p.Port, answer.Status)
	}
	return nil
}

// silent words why there is no answer.
func silent(ctx context.Context, p guest.Probe, err error) error {
	if ctx.Err() != nil {
		return nex.Errorf(nex.Timeout, "port %d does not answer within %d ms", p.Port, p.TimeoutMS)
	}
	return nex.Errorf(nex.Unavailable, "port %d does not answer: %v", p.Port, err)
}
