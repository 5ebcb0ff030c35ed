package wasm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"nex/internal/runtime"
)

// BenchmarkHostCall measures one question and its answer, asked in a loop by a
// module, of a host that answers at once.
func BenchmarkHostCall(b *testing.B) {
	const turns = 1000
	// local 0 = turns; loop: nex.answer(nex.call(payload)), again while --local 0
	body := slices.Concat(number(turns), []byte{0x21, 0, 0x03, 0x40, 0x20, 2, 0x20, 3, 0x10, 0, 0x1a}, number(answerPlace), []byte{0x10, 1,
		0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b, 0x42, 0})
	for _, size := range []int{16, 64 << 10} {
		answer := runtime.Message{Args: map[string]string{"revision": "65"}, Payload: bytes.Repeat([]byte("x"), size)}
		f := mustLoad(b, Options{Code: asking(body...), Log: func(slog.Level, string) {},
			Host: hostFunc(func(context.Context, string, string, runtime.Message) (runtime.Message, error) { return answer, nil })})
		request := framed("kv", "get", map[string]string{"key": "greeting"}, nil, nil)
		b.Run(fmt.Sprintf("answer%dB", size), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call(b, f, runtime.Trigger{Subject: "s", Payload: request})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/turns, "ns/ask")
		})
	}
}

// BenchmarkQuestion measures taking a request of 64 KiB apart.
func BenchmarkQuestion(b *testing.B) {
	request := framed("kv", "set", map[string]string{"key": "greeting"}, nil, make([]byte, 64<<10))
	b.SetBytes(int64(binary.Size(request)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readQuestion(request); err != nil {
			b.Fatal(err)
		}
	}
}
