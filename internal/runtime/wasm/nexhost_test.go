package wasm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
)

// goProgram builds a Go program for WASI.
func goProgram(t *testing.T, flags ...string) Options {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program.wasm")
	build := exec.CommandContext(t.Context(), "go", append([]string{"build", "-ldflags=-s -w", "-o", file}, flags...)...)
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	if err := precompile(file); err != nil {
		t.Fatal(err)
	}
	return example(t, file)
}

// script is a host that gives one answer and keeps what it was asked.
type script struct {
	mu     sync.Mutex
	asked  string // guarded by mu, as are the others
	answer runtime.Message
	err    error
}

func (s *script) Call(_ context.Context, service, method string, m runtime.Message) (runtime.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = fmt.Sprintf("%s.%s %q %q %q", service, method, m.Args, m.Header, m.Payload)
	return s.answer, s.err
}

func (s *script) set(answer runtime.Message, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked, s.answer, s.err = "", answer, err
}

func (s *script) was() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

const object = `{"name":"o","size":2,"mtime":"2026-01-02T03:04:05Z","digest":"SHA-256=x","bucket":"b","nuid":"n","chunks":1,"options":{"max_chunk_size":131072}}`

// TestEveryMethod uses all of the Go package nexhost, in a command and in a
// reactor.
func TestEveryMethod(t *testing.T) {
	args := func(pairs ...string) (m runtime.Message) {
		m.Args = map[string]string{}
		for n := 0; n < len(pairs); n += 2 {
			m.Args[pairs[n]] = pairs[n+1]
		}
		return m
	}
	payload := func(text string) runtime.Message { return runtime.Message{Payload: []byte(text)} }
	ok := args("status", "299", "url", "http://y")
	ok.Header, ok.Payload = map[string][]string{"B": {"1", "2"}}, []byte("body")
	const shown = `{"o" '\x02' "2026-01-02T03:04:05Z" "SHA-256=x" "b" "n" '\x01' {'𠀀'}}`
	table := []struct {
		subject string
		answer  runtime.Message
		asked   string
		want    string
	}{
		{"kv.get", payload("v\x00"), `kv.get map["key":"k"] map[] ""`, `["v\x00"]`},
		{"kv.set", args("revision", "65"), `kv.set map["key":"k"] map[] "hi"`, `['A']`},
		{"kv.delete", args(), `kv.delete map["key":"k"] map[] ""`, `[]`},
		{"kv.keys", payload(`["a","ä"]`), `kv.keys map[] map[] ""`, `[["a" "ä"]]`},
		{"kv.keys", payload(`[`), `kv.keys map[] map[] ""`, `: answer of kv keys: unexpected end of JSON input`},
		{"objectstore.get", payload("data"), `objectstore.get map["name":"o"] map[] ""`, `["data"]`},
		{"objectstore.put", payload(object), `objectstore.put map["name":"o"] map[] "hi"`, "[" + shown + "]"},
		{"objectstore.delete", args(), `objectstore.delete map["name":"o"] map[] ""`, `[]`},
		{"objectstore.list", payload("[" + object + "]"), `objectstore.list map[] map[] ""`, "[[" + shown + "]]"},
		{"messaging.publish", args(), `messaging.publish map["subject":"s"] map["A":["1" "2"]] "hi"`, `[]`},
		{"messaging.request", ok, `messaging.request map["subject":"s" "timeout_ms":"1500"] map["A":["1" "2"]] "hi"`, `[map["B":["1" "2"]] "body"]`},
		{"messaging.requestMany", payload("\x00\x00\x00\x01a\x00\x00\x00\x00"),
			`messaging.requestMany map["count":"3" "quiet_ms":"1" "subject":"s" "timeout_ms":"1000"] map[] "hi"`, `[["a" ""]]`},
		{"http.do", ok, `http.delete map["redirect":"manual" "timeout_ms":"1000" "url":"http://x/?a=b"] map["A":["1" "2"]] "hi"`,
			`[{'ī' "http://y" map["B":["1" "2"]] "body"}]`},
		{"http.get", ok, `http.get map["url":"http://x"] map[] ""`, `[{'ī' "http://y" map["B":["1" "2"]] "body"}]`},
		{"http.post", ok, `http.post map["url":"http://x"] map["Content-Type":["text/plain"]] "hi"`, `[{'ī' "http://y" map["B":["1" "2"]] "body"}]`},
		{"other.thing", ok, `other.thing map["a":"b"] map["A":["1" "2"]] "hi"`, `[map["status":"299" "url":"http://y"] map["B":["1" "2"]] "body"]`},
	}
	for name, o := range map[string]Options{
		"command": goProgram(t, "./testdata/hostguest"),
		"reactor": goProgram(t, "-tags=reactor", "-buildmode=c-shared", "./testdata/hostguest"),
	} {
		t.Run(name, func(t *testing.T) {
			host := &script{}
			o.Host, o.MaxConcurrency = host, 1
			f := mustLoad(t, o)
			for _, c := range table {
				host.set(c.answer, nil)
				if got := visit(t, f, c.subject, "hi"); got != c.want || host.was() != c.asked {
					t.Errorf("%s: %s, want %s\nasked %s\n want %s", c.subject, got, c.want, host.was(), c.asked)
				}
				host.set(runtime.Message{}, nex.Errorf(nex.Denied, "not you"))
				if got := visit(t, f, c.subject, "hi"); got != "denied: not you" {
					t.Errorf("%s denied: %s", c.subject, got)
				}
			}
			headers(t, f)
			o.Host = &buckets{}
			whole(t, mustLoad(t, o))
		})
	}
}

// headers has a function see those of its message and set those of its reply.
func headers(t *testing.T, f *Function) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // they are one call's
		r, err := f.Invoke(ctx, runtime.Trigger{Subject: "message", Reply: "inbox", Header: map[string][]string{"A": {"1", "2"}}})
		const want = `["message" "inbox" %!q(bool=true) map["A":["1" "2"]]]`
		if err != nil || string(r.Payload) != want || !reflect.DeepEqual(r.Header, map[string][]string{"Was": {"1", "2"}}) {
			t.Errorf("%s %v, %v; want %s", r.Payload, r.Header, err, want)
		}
		r, err = f.Invoke(ctx, runtime.Trigger{Subject: "message.other"})
		if err != nil || !strings.HasPrefix(string(r.Payload), "unsupported") || r.Header != nil {
			t.Errorf("%s %v, %v", r.Payload, r.Header, err)
		}
	}
}

// whole sends every byte and much of it back and forth.
func whole(t *testing.T, f *Function) {
	t.Helper()
	every := make([]byte, 256)
	for n := range every {
		every[n] = byte(n)
	}
	for _, value := range []string{"", string(every), string(bytes.Repeat(every, 1<<20/256))} {
		if got := visit(t, f, "round.trip", value); got != value {
			t.Errorf("%.100q, want %d bytes", got, len(value))
		}
	}
	if got := visit(t, f, "goroutines", ""); got != "0 wrong" {
		t.Error(got)
	}
}

func visit(t *testing.T, f *Function, subject, payload string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	reply, err := f.Invoke(ctx, runtime.Trigger{Subject: subject, Payload: []byte(payload)})
	if err != nil {
		t.Errorf("%s: %v", subject, err)
	}
	return string(reply.Payload)
}

// TestVisits runs the examples, which count what they get.
func TestVisits(t *testing.T) {
	for name, o := range map[string]Options{
		"rust": example(t, "../../../examples/wasm/rustvisits/visits.wasm"),
		"go":   goProgram(t, "../../../examples/wasm/visits"),
	} {
		t.Run(name, func(t *testing.T) {
			host := &buckets{}
			o.Host, o.MaxConcurrency = host, 2
			f := mustLoad(t, o)
			if !f.prepared.resets {
				t.Error("cannot be reset")
			}
			for n := range 3 {
				for _, payload := range []string{"hello", "", "\x00\xff"} {
					if got, want := visit(t, f, "s", payload), fmt.Sprintf("%s: %d", payload, n+1); got != want {
						t.Errorf("%q, want %q", got, want)
					}
				}
			}
			if got := string(host.values["visits-68656c6c6f"]); got != "3" {
				t.Errorf("the bucket holds %q", got)
			}
			denied := hostFunc(func(context.Context, string, string, runtime.Message) (runtime.Message, error) {
				return runtime.Message{}, nex.Errorf(nex.Denied, "not you")
			})
			o.Host, o.Log = denied, func(slog.Level, string) {}
			_, err := invoke(t, mustLoad(t, o), "hello")
			if nex.CodeOf(err) != nex.Exception || !strings.HasSuffix(err.Error(), "read the count: not you") {
				t.Errorf("denied: %v", err)
			}
		})
	}
}
