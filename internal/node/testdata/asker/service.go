// Command asker is a native service that asks host services what it is told to,
// and answers with what came of it; function.rs says in which form.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats.go"
)

var client = http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", os.Getenv("NEX_HOST_SERVICES"))
}}}

func main() {
	nc, err := nats.Connect(os.Getenv("NATS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = nc.Subscribe("ask.native", func(m *nats.Msg) {
		answer, err := read(m.Data).do()
		switch {
		case err != nil:
			answer = []byte(err.Error())
		case len(answer) > 1<<19:
			answer = strconv.AppendInt(nil, int64(len(answer)), 10)
		}
		_ = m.Respond(answer)
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	nc.Close()
}

// step is one call of a host service.
type step struct {
	service, method string
	args            map[string]string
	payload         []byte
}

func read(data []byte) (s step) {
	line := func() string {
		text, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		return string(text)
	}
	s.service, s.method = line(), line()
	size, _ := strconv.Atoi(line())
	count, _ := strconv.Atoi(line())
	s.args = map[string]string{}
	for range count {
		name := line()
		s.args[name] = line()
	}
	s.payload = data
	if size > 0 {
		s.payload = make([]byte, size)
	}
	return s
}

// do makes the request of a step and returns its answer in the form that a
// WebAssembly function gets.
func (s step) do() ([]byte, error) {
	verb, path := http.MethodPost, "/v1/"+s.service+"/"+s.method
	query := url.Values{}
	switch verbs := map[string]string{"get": "GET", "set": "PUT", "put": "PUT", "delete": "DELETE", "keys": "GET", "list": "GET"}; s.service {
	case "kv", "objectstore":
		verb, path = verbs[s.method], "/v1/"+map[string]string{"kv": "kv", "objectstore": "objects"}[s.service]
		if name := s.args["key"] + s.args["name"]; name != "" {
			path += "/" + name
		}
	default:
		for name, value := range s.args {
			query.Set(name, value)
		}
	}
	target := url.URL{Scheme: "http", Host: "nex", Path: path, RawQuery: query.Encode()}
	request, err := http.NewRequest(verb, target.String(), bytes.NewReader(s.payload))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return s.answer(response.StatusCode, body)
}

func (s step) answer(status int, body []byte) ([]byte, error) {
	switch {
	case status >= 300:
		var failure struct{ Code string }
		err := json.Unmarshal(body, &failure)
		return []byte(failure.Code), err
	case s.service == "http":
		var r struct {
			Status int
			Body   []byte
		}
		err := json.Unmarshal(body, &r)
		return append(fmt.Append(nil, r.Status), r.Body...), err
	case s.method == "requestMany":
		var replies []string
		if err := json.Unmarshal(body, &replies); err != nil {
			return nil, err
		}
		var all []byte
		for _, r := range replies {
			reply, err := base64.StdEncoding.DecodeString(r)
			if err != nil {
				return nil, err
			}
			all = append(binary.BigEndian.AppendUint32(all, uint32(len(reply))), reply...)
		}
		return all, nil
	}
	return []byte(strings.TrimSuffix(string(body), "\n")), nil
}
