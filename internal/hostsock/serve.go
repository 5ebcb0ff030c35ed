package hostsock

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"nex"
	"nex/internal/runtime"
)

const (
	// headerName is the HTTP header that carries one header of a NATS message,
	// or of the HTTP request to be made, as "Name: value". HTTP would change
	// the case of a name that was its own.
	headerName = "Nex-Header"
	// longestWait bounds how long a client may ask to wait.
	longestWait = 15 * time.Minute
	// slack is how much longer than a call's own timeout its answer is waited
	// for, so that it is the service that says what took so long.
	slack = 5 * time.Second
)

// serve answers one request. Until its body has come, and once there is an
// answer, the client has so much time and no more; in between there is only the
// call, which ends when the client leaves.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(s.limits.transfer)) // these fail only on a connection that has ended
	_ = control.SetWriteDeadline(time.Time{})
	to, m, err := s.read(w, r)
	if err == nil {
		_ = control.SetReadDeadline(time.Time{})
		m, err = s.ask(r.Context(), to, m)
	}
	_ = control.SetWriteDeadline(time.Now().Add(s.limits.transfer))
	if err == nil {
		err = to.answer(w, m)
	}
	if err != nil {
		fail(w, err)
	}
}

// read takes in a request.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (route, runtime.Message, error) {
	to, args, err := find(r)
	if err != nil {
		return route{}, runtime.Message{}, err
	}
	header, err := readHeader(r.Header.Values(headerName))
	if err != nil {
		return route{}, runtime.Message{}, err
	}
	tooLarge := nex.Errorf(nex.TooLarge, "a body of more than %d bytes is over the limit", s.maxBody)
	if r.ContentLength > s.maxBody {
		return route{}, runtime.Message{}, tooLarge
	}
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.maxBody))
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return route{}, runtime.Message{}, tooLarge
	}
	if err != nil {
		return route{}, runtime.Message{}, nex.Errorf(nex.Invalid, "the body did not come: %v", err)
	}
	return to, runtime.Message{Args: args, Header: header, Payload: payload}, nil
}

// readHeader reads lines like "Name: value".
func readHeader(lines []string) (map[string][]string, error) {
	if len(lines) == 0 {
		return nil, nil
	}
	header := map[string][]string{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, nex.Errorf(nex.Invalid, "%s %.100q is not like Name: value", headerName, line)
		}
		header[name] = append(header[name], strings.Trim(value, " \t"))
	}
	return header, nil
}

// ask has the host answer, for as long as the client wants to wait.
func (s *Server) ask(ctx context.Context, to route, m runtime.Message) (runtime.Message, error) {
	if ms, err := strconv.Atoi(m.Args["timeout_ms"]); err == nil && ms > 0 { // other values the service refuses
		wait := time.Duration(min(ms, int(longestWait/time.Millisecond))) * time.Millisecond
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, wait+slack)
		defer cancel()
	}
	return s.host.Call(ctx, to.service, to.method, m)
}

// fail answers with a code and a text.
func fail(w http.ResponseWriter, err error) {
	code := nex.CodeOf(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code.Status())
	_ = json.NewEncoder(w).Encode(nex.Error{Code: code, Message: err.Error()}) // fails only if the client has gone
}
