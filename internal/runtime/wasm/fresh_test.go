package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"nex/internal/runtime"
)

// keeper is a module written by hand that tries to keep state from one call to
// the next: it replies with what it finds.
type keeper struct {
	name   string
	body   []byte // of _start; it stores numbers of 32 bits from address 16 on
	resets bool   // can be reset, needs no new instance
	wears  bool   // closes a file or traps, after which an instance is not used again
	start  bool   // body is the start section's and _start only replies
}

// number is a signed constant.
func number(n int32) []byte {
	out := []byte{0x41}
	for n >= 64 || n < -64 {
		out = append(out, byte(n)|0x80)
		n >>= 7
	}
	return append(out, byte(n)&0x7f)
}

func store(at int32, value ...byte) []byte {
	return slices.Concat(number(at), value, []byte{0x36, 2, 0})
}

func fetch(at int32) []byte { return append(number(at), 0x28, 2, 0) }

// count adds one to the number at an address and shows it at 16.
func count(at int32) []byte {
	return slices.Concat(store(at, append(fetch(at), 0x41, 1, 0x6a)...), store(16, fetch(at)...))
}

func keepers() []keeper {
	return []keeper{
		{name: "nothing", resets: true},
		{name: "memory", resets: true, body: count(20)},
		{name: "end of memory", resets: true, body: count(0xfffc)},
		{name: "data", resets: true, body: count(8)},
		{name: "global", resets: true, body: slices.Concat([]byte{0x23, 0, 0x41, 1, 0x6a, 0x24, 0}, store(16, 0x23, 0))},
		{name: "float", resets: true, body: slices.Concat([]byte{0x23, 1, 0x23, 1, 0xa0, 0x24, 1}, store(16, 0x23, 1, 0xab))},
		{name: "vector", body: slices.Concat(store(16, 0x23, 2, 0xfd, 0x1b, 0), []byte{0x23, 2, 0x41, 7, 0xfd, 0x1c, 0, 0x24, 2})},
		{name: "size", resets: true, body: slices.Concat([]byte{0x41, 1, 0x40, 0, 0x1a}, store(16, 0x3f, 0))},
		{name: "grown memory", resets: true, body: slices.Concat([]byte{0x41, 3, 0x40, 0, 0x1a}, count(0x20008))},
		{name: "beyond memory", resets: true, wears: true, body: slices.Concat(count(20), []byte{0x41, 1, 0x40, 0, 0x1a}, fetch(0x1fff0), []byte{0x1a}, fetch(0x20000), []byte{0x1a})},
		{name: "table size", body: slices.Concat([]byte{0xd0, 0x70, 0x41, 1, 0xfc, 0x0f, 0, 0x1a}, store(16, 0xfc, 0x10, 0))},
		{name: "table entry", body: slices.Concat(store(16, 0x41, 0, 0x25, 0, 0xd1), []byte{0x41, 0, 0xd2, 3, 0x26, 0})},
		{name: "dropped data", body: slices.Concat([]byte{0x41, 16, 0x41, 0, 0x41, 2, 0xfc, 8, 1, 0, 0xfc, 9, 1})},
		{name: "standard output", resets: true, wears: true, body: slices.Concat([]byte{0x10, 3, 0x41, 1, 0x10, 1, 0x1a})}, // replies, then closes it
		{name: "exit", resets: true, body: slices.Concat(count(20), []byte{0x10, 3, 0x41, 5, 0x10, 2})},
		{name: "start section", resets: true, start: true, body: count(20)},
	}
}

// code assembles the module. Its functions are fd_write, fd_close, proc_exit,
// the one that replies, _start, and that of the start section.
func (k keeper) code() []byte {
	wasi := func(name string, kind byte) []byte {
		const from = "wasi_snapshot_preview1"
		out := append([]byte{byte(len(from))}, from...)
		return append(append(append(out, byte(len(name))), name...), 0, kind)
	}
	reply := []byte{0x41, 1, 0x41, 0, 0x41, 1, 0x41, 12, 0x10, 0, 0x1a}
	vector := byte(0)
	if k.name == "vector" {
		vector = 1 // a variable
	}
	program, first := append(slices.Clone(k.body), reply...), []byte{}
	sections := [][]byte{
		section(typeSection, 4, 0x60, 0, 0, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 1, 0x7f, 1, 0x7f, 0x60, 1, 0x7f, 0),
		section(importSection, slices.Concat([]byte{3}, wasi("fd_write", 1), wasi("fd_close", 2), wasi("proc_exit", 3))...),
		section(functionSection, 3, 0, 0, 0),
		section(tableSection, 1, 0x70, 0, 2),
		section(memorySection, 1, 0, 1),
		section(globalSection, slices.Concat([]byte{3, 0x7f, 1, 0x41, 5, 0x0b, 0x7c, 1, 0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x0b, 0x7b, vector, 0xfd, 0x0c},
			make([]byte, 16), []byte{0x0b})...),
		section(exportSection, []byte("\x02\x06_start\x00\x04\x06memory\x02\x00")...),
	}
	if k.start {
		program, first = reply, k.body
		sections = append(sections, section(startSection, 5))
	}
	function := func(body []byte) []byte {
		body = append(append([]byte{0}, body...), 0x0b)
		return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
	}
	return tiny(append(sections,
		section(elementSection, 1, 3, 0, 1, 3), // declares function 3, for ref.func
		section(dataCountSection, 2),
		section(codeSection, slices.Concat([]byte{3}, function(reply), function(program), function(first))...),
		section(dataSection, slices.Concat([]byte{2, 0, 0x41, 0, 0x0b, 8, 8, 0, 0, 0, 64, 0, 0, 0}, []byte{1, 2, 'h', 'i'})...),
	)...)
}

// TestCallsFindAFreshModule compares calls of instances that served others
// before with calls of new ones, whatever the module tries to keep.
func TestCallsFindAFreshModule(t *testing.T) {
	for _, k := range keepers() {
		t.Run(k.name, func(t *testing.T) {
			f := mustLoad(t, Options{Name: k.name, Code: k.code(), MaxConcurrency: 1, Log: func(slog.Level, string) {}})
			if f.prepared.resets != k.resets {
				t.Errorf("can be reset: %v, want %v", f.prepared.resets, k.resets)
			}
			before := resident(t, f)
			compare(t, f, "")
			if same := before == resident(t, f); same != (k.resets && !k.wears) {
				t.Errorf("the instance was used again: %v", same)
			}
		})
	}
}

// TestProgramsFindAFreshModule is the same with what compilers make.
func TestProgramsFindAFreshModule(t *testing.T) {
	for name, o := range map[string]Options{"rust": RustEcho(t), "c": example(t, "testdata/c/state.wasm"), "go": Behaving("subject"), "go fails": Behaving("throw"), "go panics": Behaving("panic")} {
		t.Run(name, func(t *testing.T) {
			o.MaxConcurrency = 1
			f := mustLoad(t, o)
			if !f.prepared.resets {
				t.Error("cannot be reset")
			}
			before := resident(t, f)
			for _, size := range []int{0, 100, 300_000, 5} {
				compare(t, f, string(bytes.Repeat([]byte("payload "), size)[:size]))
			}
			if resident(t, f) != before {
				t.Error("the instance was not used again")
			}
		})
	}
}

// resident returns the one instance of f.
func resident(t *testing.T, f *Function) *instance {
	t.Helper()
	i, err := f.pool.take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.pool.give(i)
	return i
}

// compare calls f several times and a new instance once.
func compare(t *testing.T, f *Function, payload string) {
	t.Helper()
	trigger := runtime.Trigger{Subject: "test.subject", Payload: []byte(payload)}
	i, err := f.instantiate()
	if err != nil {
		t.Fatal(err)
	}
	defer i.close()
	i.begin(trigger)
	err = i.run()
	reply := i.end()
	if err != nil {
		reply, err = runtime.Reply{}, f.failure(err, i)
	}
	want := fmt.Sprintf("%x, %v", reply.Payload, err)
	for n := range 4 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		reply, err := f.Invoke(ctx, trigger)
		cancel()
		if got := fmt.Sprintf("%x, %v", reply.Payload, err); got != want {
			t.Errorf("call %d: %.200s, want %.200s", n+1, got, want)
		}
	}
}
