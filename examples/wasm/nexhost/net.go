package nexhost

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Messaging sends NATS messages. Its zero value is ready to use.
type Messaging struct{}

// Publish sends a message. header may be nil.
func (Messaging) Publish(subject string, header map[string][]string, payload []byte) error {
	_, err := Call("messaging", "publish", Message{Args: map[string]string{"subject": subject}, Header: header, Payload: payload})
	return err
}

// Request sends a message and waits for a reply, of which it returns the headers
// and the payload. header may be nil. A timeout of 0 means that of the node; if
// no reply comes in time the code is "timeout", and "unavailable" if nobody is
// there to reply.
func (Messaging) Request(subject string, header map[string][]string, payload []byte, timeout time.Duration) (Message, error) {
	args := map[string]string{"subject": subject}
	setTime(args, "timeout_ms", timeout)
	return Call("messaging", "request", Message{Args: args, Header: header, Payload: payload})
}

// Until says when enough replies have come. What is 0 does not count; without a
// Timeout the node has one.
type Until struct {
	Timeout time.Duration // after the request
	Count   int           // replies
	Quiet   time.Duration // without another reply
}

// RequestMany sends a message and returns the payloads of the replies that came.
func (Messaging) RequestMany(subject string, header map[string][]string, payload []byte, until Until) ([][]byte, error) {
	args := map[string]string{"subject": subject}
	setTime(args, "timeout_ms", until.Timeout)
	setTime(args, "quiet_ms", until.Quiet)
	if until.Count > 0 {
		args["count"] = strconv.Itoa(until.Count)
	}
	m, err := Call("messaging", "requestMany", Message{Args: args, Header: header, Payload: payload})
	if err != nil {
		return nil, err
	}
	return split(m.Payload)
}

// split takes replies apart, each of which stands behind its size.
func split(b []byte) (replies [][]byte, err error) {
	for len(b) > 0 {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
			return nil, errors.New("answer of messaging requestMany: a reply is cut off")
		}
		end := 4 + binary.BigEndian.Uint32(b)
		replies = append(replies, b[4:end:end])
		b = b[end:]
	}
	return replies, nil
}

// HTTP sends HTTP requests. Its zero value is ready to use.
type HTTP struct{}

// HTTPRequest says what to send besides the method and the address.
type HTTPRequest struct {
	Header   map[string][]string
	Body     []byte
	Timeout  time.Duration // 0 means that of the node
	Redirect string        // "follow", which is also "", "manual" or "error"
}

// HTTPResponse is what came back.
type HTTPResponse struct {
	Status int
	URL    string // after redirects
	Header map[string][]string
	Body   []byte
}

// Do sends a request: GET, POST, PUT, PATCH, DELETE or HEAD. Every response is
// one, whatever its status.
func (HTTP) Do(method, url string, r HTTPRequest) (HTTPResponse, error) {
	args := map[string]string{"url": url}
	setTime(args, "timeout_ms", r.Timeout)
	if r.Redirect != "" {
		args["redirect"] = r.Redirect
	}
	m, err := Call("http", strings.ToLower(method), Message{Args: args, Header: r.Header, Payload: r.Body})
	if err != nil {
		return HTTPResponse{}, err
	}
	status, err := strconv.Atoi(m.Args["status"])
	return HTTPResponse{Status: status, URL: m.Args["url"], Header: m.Header, Body: m.Payload}, err
}

// Get sends a GET request.
func (h HTTP) Get(url string) (HTTPResponse, error) { return h.Do("GET", url, HTTPRequest{}) }

// Post sends a POST request.
func (h HTTP) Post(url, contentType string, body []byte) (HTTPResponse, error) {
	return h.Do("POST", url, HTTPRequest{Header: map[string][]string{"Content-Type": {contentType}}, Body: body})
}

// setTime sets an argument in milliseconds, at least one.
func setTime(args map[string]string, name string, d time.Duration) {
	if d > 0 {
		args[name] = strconv.FormatInt(max(1, d.Milliseconds()), 10)
	}
}
