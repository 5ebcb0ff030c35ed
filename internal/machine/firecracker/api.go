package firecracker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// maxAnswer bounds what is read of an answer, in bytes: the process at the other
// end has a hostile guest in it.
const maxAnswer = 64 << 10

// Fault is a request that Firecracker refused.
type Fault struct {
	Method, Path string
	Status       int    // of HTTP
	Message      string // Firecracker's own words
}

func (f *Fault) Error() string {
	return fmt.Sprintf("firecracker refuses %s %s (status %d): %s", f.Method, f.Path, f.Status, f.Message)
}

// api speaks to one Firecracker process over its Unix socket: HTTP with JSON, as
// src/firecracker/swagger/firecracker.yaml of Firecracker describes it. Requests
// may be made at the same time; Firecracker answers one after the other.
type api struct{ http *http.Client }

// newAPI returns a client of the socket that dial connects to. [api.close] frees it.
func newAPI(dial func(ctx context.Context) (net.Conn, error)) *api {
	return &api{&http.Client{Transport: &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableCompression:     true,
		MaxConnsPerHost:        2,
		MaxResponseHeaderBytes: maxAnswer,
	}, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // it is no answer of Firecracker's
	}}}
}

func (a *api) close() { a.http.CloseIdleConnections() }

// put asks for a change. What Firecracker refuses is a [*Fault].
func (a *api) put(ctx context.Context, path string, body any) error {
	return a.do(ctx, http.MethodPut, path, body, nil)
}

// get asks for a value.
func (a *api) get(ctx context.Context, path string, into any) error {
	return a.do(ctx, http.MethodGet, path, nil, into)
}

func (a *api) do(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode request for %s: %w", path, err)
		}
		content = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, content)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := a.http.Do(req)
	if err != nil {
		return err // it names the method and the path
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer to %s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		var said struct {
			Message string `json:"fault_message"`
		}
		if json.Unmarshal(answer, &said) != nil || said.Message == "" {
			said.Message = fmt.Sprintf("%q", answer)
		}
		return &Fault{Method: method, Path: path, Status: resp.StatusCode, Message: said.Message}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("decode answer to %s %s: %w", method, path, err)
	}
	return nil
}

const (
	// dialAgain is the first time between two attempts to reach a socket that is
	// not there yet, and dialAgainAtMost the longest.
	dialAgain, dialAgainAtMost = time.Millisecond, 20 * time.Millisecond
)

// errEnded says that a process ended before it did what it was waited for.
var errEnded = errors.New("the process ended")

// await returns when the API answers, gone is closed, or ctx ends.
func (a *api) await(ctx context.Context, gone <-chan struct{}) error {
	pause := dialAgain
	t := time.NewTimer(pause)
	defer t.Stop()
	for {
		var info instanceInfo
		err := a.get(ctx, "/", &info)
		var refused *Fault
		switch {
		case err == nil:
			return nil
		case errors.As(err, &refused):
			return err
		}
		select {
		case <-gone:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("%w; the last attempt: %w", ctx.Err(), err)
		case <-t.C:
		}
		pause = min(2*pause, dialAgainAtMost)
		t.Reset(pause)
	}
}
