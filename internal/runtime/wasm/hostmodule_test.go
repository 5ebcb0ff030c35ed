package wasm

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"

	"nex"
	"nex/internal/runtime"
)

// hostFunc is a host made of a function.
type hostFunc func(ctx context.Context, service, method string, m runtime.Message) (runtime.Message, error)

func (f hostFunc) Call(ctx context.Context, service, method string, m runtime.Message) (runtime.Message, error) {
	return f(ctx, service, method, m)
}

// buckets is a host with key-value buckets, whose other services answer with
// what they were asked.
type buckets struct {
	mu     sync.Mutex
	values map[string][]byte // guarded by mu
}

func (b *buckets) Call(_ context.Context, service, method string, m runtime.Message) (runtime.Message, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.values == nil {
		b.values = map[string][]byte{}
	}
	switch key := m.Args["key"]; service + "." + method {
	case "kv.set":
		b.values[key] = m.Payload
		return runtime.Message{Args: map[string]string{"revision": "7"}}, nil
	case "kv.get":
		value, ok := b.values[key]
		if !ok {
			return runtime.Message{}, nex.Errorf(nex.NotFound, "no key %s", key)
		}
		return runtime.Message{Args: map[string]string{"revision": "7"}, Payload: slices.Clone(value)}, nil
	case "test.mirror":
		return m, nil
	case "test.fail":
		return runtime.Message{}, nex.Errorf(nex.Code(m.Args["code"]), "%s", m.Payload)
	case "test.break":
		return runtime.Message{}, errors.New("it broke")
	}
	return runtime.NoHost{}.Call(context.Background(), service, method, m)
}

// framed is a request as a module would write it.
func framed(service, method string, args map[string]string, header [][2]string, payload []byte) []byte {
	b := appendCounted(appendCounted(nil, service), method)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(args)))
	for _, name := range slices.Sorted(maps.Keys(args)) {
		b = appendCounted(appendCounted(b, name), args[name])
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
	for _, h := range header {
		b = appendCounted(appendCounted(b, h[0]), h[1])
	}
	return append(b, payload...)
}

// parsed is an answer as a module would read it.
type parsed struct {
	code    string
	args    map[string]string
	header  [][2]string
	payload string
}

func parse(b []byte) (p parsed, ok bool) {
	r := reader{rest: b}
	p.code, p.args = r.counted(), map[string]string{}
	r.pairs(1000, func(name, value string) { p.args[name] = value })
	r.pairs(1000, func(name, value string) { p.header = append(p.header, [2]string{name, value}) })
	p.payload = string(r.rest)
	return p, !r.bad
}

// answerPlace is where the modules here fetch answers to.
const answerPlace = 4 << 20

// hostTypes are those of nex.call, nex.answer, functions for WASI, _start,
// nex_alloc and nex_invoke.
var hostTypes = section(typeSection, 6, 0x60, 2, 0x7f, 0x7f, 1, 0x7f, 0x60, 1, 0x7f, 0, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f,
	0x60, 0, 0, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7e)

func imported(from, name string, kind byte) []byte {
	return slices.Concat([]byte{byte(len(from))}, []byte(from), []byte{byte(len(name))}, []byte(name), []byte{0, kind})
}

func bodies(all ...[]byte) []byte {
	code := []byte{byte(len(all))}
	for _, b := range all {
		code = binary.AppendUvarint(code, uint64(len(b)+2))
		code = append(append(append(code, 0), b...), 0x0b)
	}
	return section(codeSection, code...)
}

// asking is a reactor with 8 MiB of memory, whose nex_invoke, made of body,
// may call function 0, nex.call, and 1, nex.answer.
func asking(body ...byte) []byte {
	return tiny(hostTypes,
		section(importSection, slices.Concat([]byte{2}, imported("nex", "call", 0), imported("nex", "answer", 1))...),
		section(functionSection, 2, 4, 5), memorySized(128),
		section(exportSection, []byte("\x03\x09nex_alloc\x00\x02\x0anex_invoke\x00\x03\x06memory\x02\x00")...),
		bodies(number(16), body))
}

// relay is the body of a reactor that asks what its payload says, and replies
// with the answer.
var relay = slices.Concat(
	[]byte{0x20, 2, 0x20, 3, 0x10, 0, 0x21, 3}, // payload size = nex.call(payload, payload size)
	number(answerPlace), []byte{0x10, 1},       // nex.answer(answerPlace)
	number(answerPlace), []byte{0xad, 0x42, 32, 0x86, 0x20, 3, 0xad, 0x84}, // answerPlace<<32 | payload size
)

// asker is a command that does the same. If keeps is true it has a variable
// that the host cannot put back.
func asker(keeps bool) []byte {
	const wasi = "wasi_snapshot_preview1"
	body := slices.Concat(
		store(0, number(16)...), store(4, number(answerPlace-16)...), // where to read, how much
		number(0), number(0), number(1), number(8), []byte{0x10, 2, 0x1a}, // fd_read
		store(4, slices.Concat(number(16), fetch(8), []byte{0x10, 0})...),      // nex.call
		store(0, number(answerPlace)...), number(answerPlace), []byte{0x10, 1}, // nex.answer
		number(1), number(0), number(1), number(8), []byte{0x10, 3, 0x1a}) // fd_write
	variables := section(globalSection, 0)
	if keeps {
		variables = section(globalSection, slices.Concat([]byte{1, 0x7b, 1, 0xfd, 0x0c}, make([]byte, 16), []byte{0x0b})...)
	}
	return tiny(hostTypes,
		section(importSection, slices.Concat([]byte{4}, imported("nex", "call", 0), imported("nex", "answer", 1),
			imported(wasi, "fd_read", 2), imported(wasi, "fd_write", 2))...),
		section(functionSection, 1, 3), memorySized(128), variables,
		section(exportSection, []byte("\x02\x06_start\x00\x04\x06memory\x02\x00")...),
		bodies(body))
}
