package hostsock

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"nex/internal/runtime"
)

// form writes an answer. It returns an error if there is none to write, and has
// written nothing then.
type form func(http.ResponseWriter, runtime.Message) error

// asBytes answers with the payload as it is.
func asBytes(w http.ResponseWriter, m runtime.Message) error {
	describe(w.Header(), m)
	send(w, "application/octet-stream", m.Payload)
	return nil
}

// asJSON answers with a payload that is JSON.
func asJSON(w http.ResponseWriter, m runtime.Message) error {
	describe(w.Header(), m)
	send(w, "application/json", m.Payload)
	return nil
}

// asNothing answers that all went well.
func asNothing(w http.ResponseWriter, m runtime.Message) error {
	describe(w.Header(), m)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// asReplies answers with the replies in the payload, a JSON array of base64.
func asReplies(w http.ResponseWriter, m runtime.Message) error {
	replies, err := split(m.Payload)
	if err != nil {
		return err
	}
	return sendJSON(w, replies)
}

// split cuts a payload into the parts it holds, each behind its size.
func split(payload []byte) ([][]byte, error) {
	parts := [][]byte{}
	for len(payload) > 0 {
		if len(payload) < 4 || uint64(binary.BigEndian.Uint32(payload)) > uint64(len(payload)-4) {
			return nil, fmt.Errorf("replies end in the middle of one, %d bytes before their end", len(payload))
		}
		end := 4 + int(binary.BigEndian.Uint32(payload))
		parts = append(parts, payload[4:end])
		payload = payload[end:]
	}
	return parts, nil
}

// response is what an HTTP server answered.
type response struct {
	Status  int                 `json:"status"`
	URL     string              `json:"url"`
	Headers map[string][]string `json:"headers"`
	Body    []byte              `json:"body"` // in base64
}

// asResponse answers with what an HTTP server answered.
func asResponse(w http.ResponseWriter, m runtime.Message) error {
	status, err := strconv.Atoi(m.Args["status"])
	if err != nil {
		return fmt.Errorf("status of an HTTP answer: %w", err)
	}
	r := response{Status: status, URL: m.Args["url"], Headers: m.Header, Body: m.Payload}
	if r.Headers == nil {
		r.Headers = map[string][]string{}
	}
	if r.Body == nil {
		r.Body = []byte{}
	}
	return sendJSON(w, r)
}

// describe puts an answer's arguments and headers into those of HTTP.
func describe(to http.Header, m runtime.Message) {
	for name, value := range m.Args {
		to.Set("Nex-"+name, value)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		for _, value := range m.Header[name] {
			to.Add(headerName, name+": "+value)
		}
	}
}

func sendJSON[T response | [][]byte](w http.ResponseWriter, v T) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	send(w, "application/json", append(body, '\n'))
	return nil
}

func send(w http.ResponseWriter, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // fails only if the client has gone
}
