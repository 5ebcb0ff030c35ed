package hostsvc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"nex"
	"nex/internal/guest"
)

const (
	maxRedirects = 10
	maxURL       = 64 << 10 // bytes
)

// ownHeaders are headers that belong to the connection or follow from the URL
// and the body; what a call has of them is left out, as browsers do.
var ownHeaders = []string{
	"Connection", "Content-Length", "Host", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// fetch makes an HTTP request. Its method is the call's.
func fetch(ctx context.Context, c *call) (guest.Message, error) {
	timeout, err := c.duration("timeout_ms", c.server.cfg.HTTP.Timeout)
	if err != nil {
		return guest.Message{}, err
	}
	redirect, err := redirects(c.Args["redirect"])
	if err != nil {
		return guest.Message{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := c.httpRequest(ctx)
	if err != nil {
		return guest.Message{}, err
	}
	client := http.Client{Transport: c.http(), CheckRedirect: redirect}
	response, err := client.Do(r)
	if err != nil {
		return guest.Message{}, unreachable(ctx, r.URL, err)
	}
	defer response.Body.Close()
	body, err := c.readBody(response)
	if err != nil {
		return guest.Message{}, unreachable(ctx, response.Request.URL, err)
	}
	last := *response.Request.URL
	last.User = nil
	return guest.Message{
		Args:   map[string]string{"status": strconv.Itoa(response.StatusCode), "url": last.String()},
		Header: response.Header, Payload: body,
	}, nil
}

// redirects returns what is done with an answer that leads elsewhere.
func redirects(how string) (func(*http.Request, []*http.Request) error, error) {
	switch how {
	case "", "follow":
		return func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return nex.Errorf(nex.Unavailable, "there were more than %d redirects", maxRedirects)
			}
			return checkURL(r.URL, nex.Denied)
		}, nil
	case "manual":
		return func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, nil
	case "error":
		return func(*http.Request, []*http.Request) error {
			return nex.Errorf(nex.Unavailable, "the answer is a redirect, and redirect is error")
		}, nil
	}
	return nil, nex.Errorf(nex.Invalid, "redirect is %.32q: want follow, manual or error", how)
}

func checkURL(u *url.URL, code nex.Code) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return nex.Errorf(code, "the URL begins with %.32q: want http:// or https://", u.Scheme)
	}
	if u.Hostname() == "" {
		return nex.Errorf(code, "the URL has no host")
	}
	return nil
}

func (c *call) httpRequest(ctx context.Context) (*http.Request, error) {
	text := c.Args["url"]
	if text == "" {
		return nil, nex.Errorf(nex.Invalid, "url is required")
	}
	if len(text) > maxURL {
		return nil, nex.Errorf(nex.Invalid, "the URL has %d bytes, the most are %d", len(text), maxURL)
	}
	var body io.Reader // none for a request without one
	if len(c.Payload) > 0 {
		body = bytes.NewReader(c.Payload)
	}
	r, err := http.NewRequestWithContext(ctx, strings.ToUpper(c.Method), text, body)
	if err != nil {
		rest := text[strings.LastIndex(text, "@")+1:] // before it there may be a password
		return nil, nex.Errorf(nex.Invalid, "the URL %.200q cannot be understood", rest)
	}
	if err := checkURL(r.URL, nex.Invalid); err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "nex")
	for name, values := range c.Header {
		if err := checkHeader(name, values, isTokenCharacter); err != nil {
			return nil, err
		}
		if name = http.CanonicalHeaderKey(name); !slices.Contains(ownHeaders, name) {
			r.Header[name] = slices.Clone(values)
		}
	}
	return r, nil
}

// isTokenCharacter reports whether b may be in the name of an HTTP header.
func isTokenCharacter(b byte) bool {
	return b > ' ' && b < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, rune(b))
}

// readBody reads a response's body, decompressed, as far as it may go.
func (c *call) readBody(response *http.Response) ([]byte, error) {
	most := c.server.cfg.HTTP.MaxBody
	tooLarge := nex.Errorf(nex.TooLarge, "the response's body is longer than %d bytes", most)
	if response.Request.Method == http.MethodHead {
		return nil, nil
	}
	if response.ContentLength > most {
		return nil, tooLarge
	}
	var body []byte
	piece := make([]byte, 32<<10)
	for {
		n, err := response.Body.Read(piece)
		if int64(len(body)+n) > most {
			return nil, tooLarge
		}
		if err := c.hold(n); err != nil {
			return nil, err
		}
		body = append(body, piece[:n]...)
		if errors.Is(err, io.EOF) {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// unreachable says why there is no response. It tells of no addresses: those of
// the node and its name servers are not for workloads to know.
func unreachable(ctx context.Context, u *url.URL, err error) error {
	var coded *nex.Error
	if errors.As(err, &coded) {
		return coded
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var last *url.Error
	if errors.As(err, &last) {
		if at, parseErr := url.Parse(last.URL); parseErr == nil {
			u = at // where redirects led
		}
		err = last.Err
	}
	var waited net.Error
	if errors.As(err, &waited) && waited.Timeout() {
		return nex.Errorf(nex.Timeout, "%.100q did not answer in time", u.Host)
	}
	return nex.Errorf(nex.Unavailable, "%.100q cannot be reached: %.200s", u.Host, reason(err))
}

func reason(err error) string {
	var name *net.DNSError
	var system syscall.Errno
	var operation *net.OpError
	switch {
	case errors.As(err, &name):
		return "its name has no address"
	case errors.As(err, &system):
		return system.Error()
	case errors.As(err, &operation):
		return "the connection failed"
	}
	return err.Error()
}
