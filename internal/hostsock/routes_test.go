package hostsock_test

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"nex"
	"nex/internal/hostsock"
	"nex/internal/runtime"
)

func TestEveryRoute(t *testing.T) {
	type args = map[string]string
	type header = map[string][]string
	bytes := "\x00\xff \n"
	for name, tc := range map[string]struct {
		request, body   string
		header          []string
		service, method string
		args            args
		sent            header // to the host
		answer          runtime.Message
		status          int
		contentType     string
		want            string
		revision        string // in the answer
		line            string // the answer's Nex-Header
	}{
		"keys":            {request: "GET /v1/kv", service: "kv", method: "keys", answer: runtime.Message{Payload: []byte(`["a"]`)}, contentType: "application/json", want: `["a"]`},
		"get":             {request: "GET /v1/kv/a", service: "kv", method: "get", args: args{"key": "a"}, answer: runtime.Message{Args: args{"revision": "7"}, Payload: []byte(bytes)}, contentType: "application/octet-stream", want: bytes, revision: "7"},
		"get nothing":     {request: "GET /v1/kv/a", service: "kv", method: "get", args: args{"key": "a"}, contentType: "application/octet-stream"},
		"set":             {request: "PUT /v1/kv/a", body: bytes, service: "kv", method: "set", args: args{"key": "a"}, answer: runtime.Message{Args: args{"revision": "8"}}, status: 204, revision: "8"},
		"delete":          {request: "DELETE /v1/kv/a", service: "kv", method: "delete", args: args{"key": "a"}, status: 204},
		"path as key":     {request: "GET /v1/kv/a/b.c/../d//e/", service: "kv", method: "get", args: args{"key": "a/b.c/../d//e/"}, contentType: "application/octet-stream"},
		"escaped key":     {request: "GET /v1/kv/a%2Fb%20c%25%3Fd%C3%BC+%252F", service: "kv", method: "get", args: args{"key": "a/b c%?dü+%2F"}, contentType: "application/octet-stream"},
		"key like a path": {request: "PUT /v1/kv/http/get", service: "kv", method: "set", args: args{"key": "http/get"}, status: 204},

		"list":          {request: "GET /v1/objects", service: "objectstore", method: "list", answer: runtime.Message{Payload: []byte(`[]`)}, contentType: "application/json", want: `[]`},
		"get object":    {request: "GET /v1/objects/a/b", service: "objectstore", method: "get", args: args{"name": "a/b"}, answer: runtime.Message{Payload: []byte(bytes)}, contentType: "application/octet-stream", want: bytes},
		"put object":    {request: "PUT /v1/objects/a%20b", body: bytes, service: "objectstore", method: "put", args: args{"name": "a b"}, answer: runtime.Message{Payload: []byte(`{"name":"a b"}`)}, contentType: "application/json", want: `{"name":"a b"}`},
		"delete object": {request: "DELETE /v1/objects/a", service: "objectstore", method: "delete", args: args{"name": "a"}, status: 204},

		"publish": {
			request: "POST /v1/messaging/publish?subject=a.b", body: bytes, header: []string{"Nex-Header", "trace-ID: 1: 2 ", "Nex-Header", "trace-ID:3", "Other", "x"},
			service: "messaging", method: "publish", args: args{"subject": "a.b"}, sent: header{"trace-ID": {"1: 2", "3"}}, status: 204,
		},
		"request": {
			request: "POST /v1/messaging/request?subject=a%20b&timeout_ms=500", body: bytes, service: "messaging", method: "request",
			args:   args{"subject": "a b", "timeout_ms": "500"},
			answer: runtime.Message{Header: header{"x-Y": {"z"}}, Payload: []byte(bytes)}, contentType: "application/octet-stream", want: bytes, line: "x-Y: z",
		},
		"requestMany": {
			request: "POST /v1/messaging/requestMany?subject=a&count=2&quiet_ms=3&timeout_ms=4", service: "messaging", method: "requestMany",
			args:   args{"subject": "a", "count": "2", "quiet_ms": "3", "timeout_ms": "4"},
			answer: runtime.Message{Args: args{"count": "2"}, Payload: []byte("\x00\x00\x00\x02hi\x00\x00\x00\x00")}, contentType: "application/json", want: `["aGk=",""]` + "\n",
		},
		"no replies": {request: "POST /v1/messaging/requestMany?subject=a", service: "messaging", method: "requestMany", args: args{"subject": "a"}, contentType: "application/json", want: "[]\n"},

		"http": {
			request: "POST /v1/http/patch?url=http%3A%2F%2Fh%2F%3Fa%3D1%26b&redirect=manual&timeout_ms=9", body: bytes, header: []string{"Nex-Header", "Authorization: Bearer x"},
			service: "http", method: "patch", args: args{"url": "http://h/?a=1&b", "redirect": "manual", "timeout_ms": "9"}, sent: header{"Authorization": {"Bearer x"}},
			answer:      runtime.Message{Args: args{"status": "404", "url": "http://h/"}, Header: header{"A": {"1", "2"}}, Payload: []byte("\x00\xff")},
			contentType: "application/json", want: `{"status":404,"url":"http://h/","headers":{"A":["1","2"]},"body":"AP8="}` + "\n",
		},
		"http with an empty answer": {
			request: "POST /v1/http/head?url=http://h/", service: "http", method: "head", args: args{"url": "http://h/"},
			answer: runtime.Message{Args: args{"status": "200", "url": "http://h/"}}, contentType: "application/json", want: `{"status":200,"url":"http://h/","headers":{},"body":""}` + "\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := answering(tc.answer, nil)
			method, path, _ := strings.Cut(tc.request, " ")
			got := do(t, client(t, serve(t, hostsock.Listen, f)), method, path, tc.body, tc.header...)
			q := f.last()
			if q.service != tc.service || q.method != tc.method || !maps.Equal(q.Args, tc.args) || string(q.Payload) != tc.body || !reflect.DeepEqual(q.Header, tc.sent) {
				t.Errorf("asked %+v", q)
			}
			status := max(tc.status, 200)
			if got.status != status || got.body != tc.want || got.header.Get("Content-Type") != tc.contentType {
				t.Errorf("answer %d %q %v", got.status, got.body, got.header)
			}
			if got.header.Get("Nex-Revision") != tc.revision || got.header.Get("Nex-Header") != tc.line {
				t.Errorf("headers %v", got.header)
			}
		})
	}
}

func TestHTTPMethods(t *testing.T) {
	f := answering(runtime.Message{Args: map[string]string{"status": "200"}}, nil)
	c := client(t, serve(t, hostsock.Listen, f))
	for _, method := range []string{"get", "post", "put", "patch", "delete", "head"} {
		if got := do(t, c, http.MethodPost, "/v1/http/"+method+"?url=x", ""); got.status != 200 || f.last().method != method {
			t.Errorf("%s: %d %s", method, got.status, got.body)
		}
	}
}

// refused checks that an answer is a failure with a code and a text.
func refused(t *testing.T, got reply, code nex.Code, text string) {
	t.Helper()
	var e nex.Error
	if err := json.Unmarshal([]byte(got.body), &e); err != nil || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("no failure: %v %q", err, got.body)
	}
	if got.status != code.Status() || e.Code != code || !strings.Contains(e.Message, text) {
		t.Errorf("status %d, %+v; want %s with %q", got.status, e, code, text)
	}
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	f := echo()
	c := client(t, serve(t, hostsock.Listen, f))
	for _, tc := range []struct {
		request string
		header  string
		code    nex.Code
		text    string
	}{
		{"GET /", "", nex.Unsupported, `no GET "/"`},
		{"GET /v2/kv", "", nex.Unsupported, `"/v2/kv"`},
		{"GET /v1/", "", nex.Unsupported, ""},
		{"GET /v1/kv/", "", nex.Unsupported, ""},
		{"GET /v1/kvx", "", nex.Unsupported, ""},
		{"POST /v1/kv/a", "", nex.Unsupported, `no POST "/v1/kv/a"`},
		{"HEAD /v1/http/get", "", nex.Unsupported, ""},
		{"GET /v1/messaging/publish", "", nex.Unsupported, ""},
		{"POST /v1/messaging", "", nex.Unsupported, ""},
		{"POST /v1/messaging/subscribe", "", nex.Unsupported, ""},
		{"POST /v1/http/trace?url=x", "", nex.Unsupported, ""},
		{"GET /v1/kv/a?b=c", "", nex.Invalid, `"b"`},
		{"POST /v1/messaging/publish?subject=a&timeout_ms=5", "", nex.Invalid, `"timeout_ms": publish of messaging takes ["subject"]`},
		{"POST /v1/messaging/publish?subject=a&subject=b", "", nex.Invalid, "each once"},
		{"POST /v1/messaging/publish?subject=%zz", "", nex.Invalid, "%zz"},
		{"POST /v1/messaging/publish?subject=a;b", "", nex.Invalid, "semicolon"},
		{"POST /v1/messaging/publish?subject=%ff", "", nex.Invalid, "subject is not UTF-8"},
		{"GET /v1/kv/%ff", "", nex.Invalid, "key is not UTF-8"},
		{"POST /v1/messaging/publish?subject=a", "no colon", nex.Invalid, "Name: value"},
		{"POST /v1/messaging/publish?subject=a", ": no name", nex.Invalid, "Name: value"},
	} {
		method, path, _ := strings.Cut(tc.request, " ")
		var header []string
		if tc.header != "" {
			header = []string{"Nex-Header", tc.header}
		}
		got := do(t, c, method, path, "", header...)
		if method == http.MethodHead { // has no body
			if got.status != tc.code.Status() {
				t.Errorf("%s: %d", tc.request, got.status)
			}
			continue
		}
		t.Run(tc.request, func(t *testing.T) { refused(t, got, tc.code, tc.text) })
	}
	if q := f.last(); q.service != "" {
		t.Errorf("the host was asked %+v", q)
	}
}

func TestFailuresOfTheHost(t *testing.T) {
	for _, code := range []nex.Code{
		nex.Invalid, nex.NotFound, nex.Denied, nex.Timeout, nex.TooLarge, nex.Overloaded, nex.Unavailable, nex.Unsupported, nex.Internal,
	} {
		c := client(t, serve(t, hostsock.Listen, answering(runtime.Message{}, nex.Errorf(code, "because <%s>", code))))
		for _, request := range []string{"GET /v1/kv/a", "GET /v1/kv", "PUT /v1/kv/a", "POST /v1/messaging/requestMany?subject=a", "POST /v1/http/get?url=x"} {
			method, path, _ := strings.Cut(request, " ")
			refused(t, do(t, c, method, path, ""), code, "because <"+string(code)+">")
		}
	}
	c := client(t, serve(t, hostsock.Listen, answering(runtime.Message{}, errors.New("odd"))))
	refused(t, do(t, c, http.MethodGet, "/v1/kv", ""), nex.Internal, "odd")
}

// TestAnswersThatMakeNoSense: a host that answers nonsense is at fault, not the
// client.
func TestAnswersThatMakeNoSense(t *testing.T) {
	c := client(t, serve(t, hostsock.Listen, answering(runtime.Message{Payload: []byte("\x00\x00\x00\x09short")}, nil)))
	refused(t, do(t, c, http.MethodPost, "/v1/messaging/requestMany?subject=a", ""), nex.Internal, "end in the middle")
	refused(t, do(t, c, http.MethodPost, "/v1/http/get?url=x", ""), nex.Internal, "status")
}
