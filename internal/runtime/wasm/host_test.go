package wasm

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
)

// askers are modules that answer with what a host service answers to their
// payload.
func askers() map[string]Options {
	all := map[string]Options{}
	for name, code := range map[string][]byte{"reactor": asking(relay...), "command": asker(false), "command that is never reset": asker(true)} {
		all[name] = Options{Name: name, Code: code, Log: func(slog.Level, string) {}}
	}
	return all
}

// patience bounds what must come soon.
const patience = time.Minute

func await[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
	return v
}

// ask has a module ask a host service.
func ask(t *testing.T, f *Function, request []byte) parsed {
	t.Helper()
	got, err := invoke(t, f, string(request))
	if err != nil {
		t.Fatalf("ask: %v", err)
	}
	p, ok := parse([]byte(got))
	if !ok {
		t.Fatalf("the answer cannot be read: %.200q", got)
	}
	return p
}

func TestHostServices(t *testing.T) {
	everyByte := make([]byte, 256)
	for n := range everyByte {
		everyByte[n] = byte(n)
	}
	header := [][2]string{{"", ""}, {"A", "1"}, {"A", "2"}, {"a", "\x00\xff"}}
	args := map[string]string{"": "", "key": "ключ", "other": string(everyByte)}
	for name, o := range askers() {
		t.Run(name, func(t *testing.T) {
			o.Host = &buckets{}
			f := mustLoad(t, o)
			for _, payload := range [][]byte{nil, everyByte, bytes.Repeat(everyByte, 1<<20/256)} {
				want := parsed{args: args, header: header, payload: string(payload)}
				if got := ask(t, f, framed("test", "mirror", args, header, payload)); !reflect.DeepEqual(got, want) {
					t.Errorf("mirror answers %.200q, want %.200q", got, want)
				}
				key := map[string]string{"key": fmt.Sprint(len(payload))}
				if got := ask(t, f, framed("kv", "set", key, nil, payload)); got.code != "" || got.args["revision"] != "7" || got.payload != "" {
					t.Errorf("set answers %.200q", got)
				}
				if got := ask(t, f, framed("kv", "get", key, nil, nil)); got.code != "" || got.payload != string(payload) {
					t.Errorf("get answers %.200q, want %d bytes", got, len(payload))
				}
			}
			for _, code := range []nex.Code{nex.Invalid, nex.NotFound, nex.Denied, nex.Timeout, nex.TooLarge, nex.Overloaded, nex.Unavailable, nex.Unsupported, nex.Internal} {
				want := parsed{code: string(code), args: map[string]string{}, payload: "because"}
				if got := ask(t, f, framed("test", "fail", map[string]string{"code": string(code)}, nil, []byte("because"))); !reflect.DeepEqual(got, want) {
					t.Errorf("failure %q, want %q", got, want)
				}
			}
			if got := ask(t, f, framed("test", "break", nil, nil, nil)); got.code != "internal" || got.payload != "it broke" {
				t.Errorf("an error without a code becomes %q", got)
			}
			if got := ask(t, f, framed("test", "fail", map[string]string{"code": "denied"}, nil, bytes.Repeat([]byte{0xff}, maxLine+1))); got.payload != "\uFFFD" {
				t.Errorf("text of an error: %.200q", got)
			}
		})
	}
}

func TestNoHost(t *testing.T) {
	for name, o := range askers() {
		got := ask(t, mustLoad(t, o), framed("kv", "get", map[string]string{"key": "a"}, nil, nil))
		if got.code != "unsupported" || got.payload != "No such host service: kv" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestHostCallsFindAFreshModule compares instances that served others before
// with new ones.
func TestHostCallsFindAFreshModule(t *testing.T) {
	for name, o := range askers() {
		o.Host, o.MaxConcurrency = &buckets{}, 1
		f := mustLoad(t, o)
		if f.reactor {
			continue
		}
		if f.prepared.resets != (name == "command") {
			t.Errorf("%s can be reset: %v", name, f.prepared.resets)
		}
		before := resident(t, f)
		for _, size := range []int{0, 5, 1 << 20, 3} {
			compare(t, f, string(framed("test", "mirror", nil, nil, bytes.Repeat([]byte("x"), size))))
		}
		if same := before == resident(t, f); same != f.prepared.resets {
			t.Errorf("%s: the instance was used again: %v", name, same)
		}
	}
}

// TestMalformedRequests cuts a request everywhere, and counts what is not
// there.
func TestMalformedRequests(t *testing.T) {
	asked := 0
	host := hostFunc(func(context.Context, string, string, runtime.Message) (runtime.Message, error) {
		asked++
		return runtime.Message{}, nil
	})
	f := mustLoad(t, Options{Code: asking(relay...), MaxConcurrency: 1, Host: host, Log: func(slog.Level, string) {}})
	whole := framed("kv", "set", map[string]string{"key": "a"}, [][2]string{{"A", "1"}}, nil)
	pairs := make([][2]string, maxHeaders+1)
	many := map[string]string{}
	for n := range maxArgs + 1 {
		many[fmt.Sprint(n)] = ""
	}
	bad := map[string][]byte{
		"long service":  framed(strings.Repeat("k", maxName+1), "get", nil, nil, nil),
		"long method":   framed("kv", strings.Repeat("k", maxName+1), nil, nil, nil),
		"many args":     framed("kv", "get", many, nil, nil),
		"many headers":  framed("kv", "get", nil, pairs, nil),
		"endless text":  append([]byte{0xff, 0xff, 0xff, 0xff}, whole...),
		"negative text": append([]byte{0, 0, 0, 0x80}, whole...),
		"endless args":  slices.Concat(framed("kv", "get", nil, nil, nil)[:13], []byte{0xff, 0xff, 0xff, 0xff}, make([]byte, 100)),
	}
	for n := range whole {
		bad[fmt.Sprintf("cut after %d bytes", n)] = whole[:n]
	}
	for name, request := range bad {
		if got := ask(t, f, request); got.code != "invalid" || !strings.HasPrefix(got.payload, "malformed request") {
			t.Errorf("%s: %q", name, got)
		}
	}
	if asked != 0 {
		t.Errorf("the host was asked %d times", asked)
	}
	for name, request := range map[string][]byte{
		"whole":        whole,
		"most headers": framed("kv", "get", nil, pairs[1:], nil),
		"names":        framed(strings.Repeat("k", maxName), strings.Repeat("k", maxName), nil, nil, nil),
	} {
		if got := ask(t, f, request); got.code != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestBadPointers ends modules that point outside of their memory of 8 MiB.
func TestBadPointers(t *testing.T) {
	call := func(at, size int32) []byte { return slices.Concat(number(at), number(size), []byte{0x10, 0, 0x1a}) }
	fetch := func(to int32) []byte { return slices.Concat(number(to), []byte{0x10, 1}) }
	const outside = "nex.call: the request is outside of memory"
	const end = 8 << 20
	for name, c := range map[string]struct {
		body []byte
		want string // "" for a reply
	}{
		"beyond":                       {call(end, 1), outside},
		"half beyond":                  {call(end-10, 11), outside},
		"negative address":             {call(-1, 1), outside},
		"negative size":                {call(16, -1), outside},
		"both at their end":            {call(-1, -1), outside},
		"empty at the end":             {call(end, 0), ""},
		"empty beyond":                 {call(end+1, 0), outside},
		"no answer":                    {fetch(16), "nex.answer: there is no answer to fetch"},
		"answer twice":                 {slices.Concat(call(16, 0), fetch(16), fetch(16)), "nex.answer: there is no answer to fetch"},
		"answer beyond":                {slices.Concat(call(16, 0), fetch(end-10)), "nex.answer: the place for the answer of 156 bytes is outside of memory"},
		"negative place":               {slices.Concat(call(16, 0), fetch(-1)), "nex.answer: the place for the answer of 156 bytes is outside of memory"},
		"two calls":                    {slices.Concat(call(16, 0), call(16, 0), fetch(16)), ""},
		"call after answer":            {slices.Concat(call(16, 0), fetch(16), call(16, 0)), ""},
		"answer of a call that failed": {slices.Concat(call(16, 0), call(-1, 1)), outside},
	} {
		t.Run(name, func(t *testing.T) {
			var log recorder
			f := mustLoad(t, Options{Code: asking(append(c.body, 0x42, 0)...), Host: &buckets{}, Log: log.log})
			for range 2 {
				_, err := invoke(t, f, "")
				if c.want == "" && err != nil {
					t.Error(err)
				}
				if c.want != "" {
					wantError(t, err, nex.Exception, c.want)
				}
			}
			if got := log.all(); c.want != "" && (len(got) != 2 || !strings.Contains(got[0], "wasm stack trace")) {
				t.Errorf("log holds %q, want a stack trace for each call", got)
			}
		})
	}
}

// A module that brings no memory has none to point to.
func TestNoMemory(t *testing.T) {
	code := tiny(hostTypes, section(importSection, append([]byte{1}, imported("nex", "call", 0)...)...), section(functionSection, 1, 3),
		section(exportSection, []byte("\x01\x06_start\x00\x01")...), bodies(slices.Concat(number(0), number(1), []byte{0x10, 0, 0x1a})))
	_, err := invoke(t, mustLoad(t, Options{Code: code, Log: func(slog.Level, string) {}}), "")
	wantError(t, err, nex.Exception, "nex.call: the request is outside of memory")
}

// TestAnswersAreForgotten asks in one call and fetches in the next.
func TestAnswersAreForgotten(t *testing.T) {
	body := slices.Concat([]byte{0x20, 3, 0x04, 0x40, 0x20, 2, 0x20, 3, 0x10, 0, 0x1a, 0x05}, number(answerPlace), []byte{0x10, 1, 0x0b, 0x42, 0})
	f := mustLoad(t, Options{Code: asking(body...), MaxConcurrency: 1, Host: &buckets{}, Log: func(slog.Level, string) {}})
	if _, err := invoke(t, f, "no request"); err != nil {
		t.Fatal(err)
	}
	_, err := invoke(t, f, "")
	wantError(t, err, nex.Exception, "nex.answer: there is no answer to fetch")
}

func TestHostSizes(t *testing.T) {
	size := 0
	host := hostFunc(func(context.Context, string, string, runtime.Message) (runtime.Message, error) {
		return runtime.Message{Payload: make([]byte, size)}, nil
	})
	o := Options{Code: asking(relay...), MemoryLimit: 16 << 20, Host: host, Log: func(slog.Level, string) {}}
	f := mustLoad(t, o)
	request := framed("test", "large", nil, nil, nil)
	size = 16<<20 - 12
	if _, err := invoke(t, f, string(request)); err == nil || !strings.HasPrefix(err.Error(), "nex.answer: the place") {
		t.Errorf("an answer of the size of the memory: %v", err)
	}
	size++
	if got := ask(t, f, request); got.code != "too_large" || got.payload != "the answer of 16 MiB is over the limit of 16 MiB" {
		t.Errorf("answer over the memory limit: %q", got)
	}
	o.MemoryLimit = 128 << 20
	f = mustLoad(t, o)
	size = maxMessage - 11
	if got := ask(t, f, request); got.code != "too_large" || got.payload != "the answer of 65 MiB is over the limit of 65 MiB" {
		t.Errorf("answer over the limit: %q", got)
	}
	grow := slices.Concat(number(1024), []byte{0x40, 0, 0x1a}, number(0), number(maxMessage+1), []byte{0x10, 0, 0x21, 3}, relay[8:])
	o.Code = asking(grow...)
	if got := ask(t, mustLoad(t, o), nil); got.code != "too_large" || got.payload != "the request of 65 MiB is over the limit of 65 MiB" {
		t.Errorf("request over the limit: %q", got)
	}
}

// silent is a host that answers when it is told to, and tells when it is asked
// and why it gave up.
type silent struct {
	asked, answer chan struct{}
	gaveUp        chan error
}

func newSilent() *silent {
	return &silent{make(chan struct{}, 1), make(chan struct{}), make(chan error, 1)}
}

func (s *silent) Call(ctx context.Context, _, _ string, _ runtime.Message) (runtime.Message, error) {
	s.asked <- struct{}{}
	select {
	case <-s.answer:
		return runtime.Message{Payload: []byte("at last")}, nil
	case <-ctx.Done():
		s.gaveUp <- ctx.Err()
		return runtime.Message{}, nex.Errorf(nex.Timeout, "no answer in time")
	}
}

// start has a module ask a host that is silent, and returns when it has asked.
func start(ctx context.Context, t *testing.T, f *Function, host *silent) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		reply, err := f.Invoke(ctx, runtime.Trigger{Subject: "a", Payload: framed("test", "silence", nil, nil, nil)})
		if err == nil && !bytes.HasSuffix(reply.Payload, []byte("at last")) {
			err = fmt.Errorf("reply %q", reply.Payload)
		}
		ended <- err
	}()
	await(t, host.asked, "the question")
	return ended
}

// TestHostCallAtTheDeadline ends calls that wait for a host service, and shows
// that those after them work.
func TestHostCallAtTheDeadline(t *testing.T) {
	for name, o := range askers() {
		t.Run(name, func(t *testing.T) {
			host := newSilent()
			o.Host, o.MaxConcurrency = host, 1
			f := mustLoad(t, o)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := await(t, start(ctx, t, f, host), "the end of the call")
			if nex.CodeOf(err) != nex.Timeout || !strings.HasPrefix(err.Error(), "the function was stopped after ") {
				t.Errorf("error %v, want a timeout", err)
			}
			t.Logf("ended %s after its deadline", time.Since(began)-100*time.Millisecond)
			await(t, host.gaveUp, "the host to give up") // told of the deadline, or that the call has ended at it
			ended := start(t.Context(), t, f, host)
			close(host.answer)
			if err := await(t, ended, "the answer"); err != nil {
				t.Errorf("the call after: %v", err)
			}
		})
	}
}

// TestWaitingIsNotStopped has a module wait for longer than it could compute
// with its fuel, again and again.
func TestWaitingIsNotStopped(t *testing.T) {
	host := newSilent()
	f := mustLoad(t, Options{Code: asking(relay...), MaxConcurrency: 1, Host: host, Log: func(slog.Level, string) {}})
	for range 3 {
		ended := start(t.Context(), t, f, host)
		select {
		case err := <-ended:
			t.Fatalf("the call ended: %v", err)
		case <-time.After(200 * time.Millisecond):
		}
		host.answer <- struct{}{}
		if err := await(t, ended, "the reply"); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseDuringAHostCall(t *testing.T) {
	for name, o := range askers() {
		t.Run(name, func(t *testing.T) {
			host := newSilent()
			o.Host = host
			f := mustLoad(t, o)
			ended := start(t.Context(), t, f, host)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := f.Close(ctx); err != nil {
				t.Error(err)
			}
			wantError(t, await(t, ended, "the end of the call"), nex.Unavailable, "the function was closed during the call")
			await(t, host.gaveUp, "the host to give up")
		})
	}
}

// TestStartUsesHostServices asks before the first call.
func TestStartUsesHostServices(t *testing.T) {
	asked := 0
	host := hostFunc(func(ctx context.Context, service, method string, _ runtime.Message) (runtime.Message, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("asked without a deadline")
		}
		asked++
		return runtime.Message{}, nil
	})
	code := tiny(hostTypes,
		section(importSection, append([]byte{1}, imported("nex", "call", 0)...)...),
		section(functionSection, 3, 4, 5, 3), memorySized(1),
		section(exportSection, []byte("\x04\x09nex_alloc\x00\x01\x0anex_invoke\x00\x02\x0b_initialize\x00\x03\x06memory\x02\x00")...),
		bodies(number(16), []byte{0x42, 0}, slices.Concat(number(8), number(16), []byte{0x10, 0, 0x1a})),
		section(dataSection, slices.Concat([]byte{1, 0}, number(8), []byte{0x0b, 16}, make([]byte, 16))...))
	mustLoad(t, Options{Code: code, Host: host, Log: func(slog.Level, string) {}})
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// TestHostCallsInParallel has several instances ask at once, each for its own.
func TestHostCallsInParallel(t *testing.T) {
	for name, o := range askers() {
		t.Run(name, func(t *testing.T) {
			o.Host, o.MaxConcurrency = &buckets{}, 8
			f := mustLoad(t, o)
			var wg sync.WaitGroup
			for n := range 100 {
				wg.Go(func() {
					key, value := map[string]string{"key": fmt.Sprint(n)}, strings.Repeat(fmt.Sprint(n, " "), 1+n*50)
					for _, request := range [][]byte{framed("kv", "set", key, nil, []byte(value)), framed("kv", "get", key, nil, nil)} {
						got, err := invoke(t, f, string(request))
						p, ok := parse([]byte(got))
						if err != nil || !ok || p.code != "" || p.payload != "" && p.payload != value {
							t.Errorf("%d: %.100q, %v", n, p, err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestOnlyThoseThatAskHaveAHost shows that other modules get nothing.
func TestOnlyThoseThatAskHaveAHost(t *testing.T) {
	if f := mustLoad(t, Options{Code: command(nil), Log: func(slog.Level, string) {}}); f.engine.Module(hostModule) != nil {
		t.Error("a module without imports has the module nex")
	}
	for name, c := range map[string]struct{ code, want string }{
		"unknown function": {string(importing("nex", "ask")), "x imports the function nex.ask, which does not exist here: " +
			"Nex offers WASI preview 1 (wasi_snapshot_preview1) and host services (nex) only"},
		"another type": {string(importing("nex", "call")), "x cannot start: "},
	} {
		_, err := Load(t.Context(), Options{Name: "x", Code: []byte(c.code), Host: &buckets{}, Log: func(slog.Level, string) {}})
		if nex.CodeOf(err) != nex.Invalid || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestHostWithCachedCode loads a module again from the cache directory.
func TestHostWithCachedCode(t *testing.T) {
	o := Options{Code: asker(false), CacheDir: t.TempDir(), Host: &buckets{}, Log: func(slog.Level, string) {}}
	mustLoad(t, o)
	whole := cacheFiles(t, o.CacheDir)
	if got := ask(t, mustLoad(t, o), framed("test", "mirror", nil, nil, []byte("hi"))); got.payload != "hi" {
		t.Errorf("%q", got)
	}
	if got := cacheFiles(t, o.CacheDir); !slices.Equal(got, whole) {
		t.Errorf("files of the cache: %v, then %v", whole, got)
	}
}

func FuzzQuestion(f *testing.F) {
	f.Add(framed("kv", "set", map[string]string{"key": "a"}, [][2]string{{"A", "1"}, {"A", "2"}}, []byte("value")))
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, request []byte) {
		q, err := readQuestion(request)
		if err != nil {
			return
		}
		var header [][2]string
		for name, values := range q.message.Header {
			for _, v := range values {
				header = append(header, [2]string{name, v})
			}
		}
		again, err := readQuestion(framed(q.service, q.method, q.message.Args, header, q.message.Payload))
		if err != nil || !reflect.DeepEqual(again, q) {
			t.Errorf("%q becomes %q, %v", q, again, err)
		}
	})
}
