package wasm

import (
	"bytes"
	"context"
	"log/slog"
	"testing"

	"nex/internal/runtime"
)

// BenchmarkCall measures one call after the other: with instances that are
// reset, as they are used, and with a new instance for each call, as they would
// be without. A reactor has no need of either.
func BenchmarkCall(b *testing.B) {
	for _, c := range []struct {
		name    string
		options func() Options
		size    int
	}{
		{"tiny", func() Options { return Options{Code: command([][]byte{memorySized(1)})} }, 16},
		{"rust16B", func() Options { return RustEcho(b) }, 16},
		{"rust64KiB", func() Options { return RustEcho(b) }, 64 << 10},
		{"go16B", func() Options { return Behaving("echo") }, 16},
		{"reactor16B", func() Options { return RustReactor(b) }, 16},
		{"reactor64KiB", func() Options { return RustReactor(b) }, 64 << 10},
	} {
		o := c.options()
		o.Log = func(slog.Level, string) {}
		f := mustLoad(b, o)
		t := runtime.Trigger{Subject: "bench.subject", Payload: bytes.Repeat([]byte("x"), c.size)}
		b.Run(c.name+"/kept", func(b *testing.B) {
			for b.Loop() {
				call(b, f, t)
			}
		})
		b.Run(c.name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call(b, f, t)
				}
			})
		})
		if f.reactor {
			continue
		}
		b.Run(c.name+"/fresh", func(b *testing.B) {
			for b.Loop() {
				i, err := f.instantiate()
				if err != nil {
					b.Fatal(err)
				}
				i.begin(t)
				if err := i.under(b.Context(), i.run); err != nil {
					b.Fatal(err)
				}
				i.end()
				i.close()
			}
		})
	}
}

func call(b *testing.B, f *Function, t runtime.Trigger) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	if _, err := f.Invoke(ctx, t); err != nil {
		b.Error(err)
	}
}

// BenchmarkReset measures what happens after a call of the Rust example.
func BenchmarkReset(b *testing.B) {
	f := mustLoad(b, RustEcho(b))
	i, err := f.instantiate()
	if err != nil {
		b.Fatal(err)
	}
	defer i.close()
	for b.Loop() {
		i.begin(runtime.Trigger{Subject: "s", Payload: []byte("hello")})
		if err := i.run(); err != nil {
			b.Fatal(err)
		}
		i.end()
		if !i.reset() {
			b.Fatal("cannot be reset")
		}
	}
}

// BenchmarkLoad measures loading a module that was compiled before.
func BenchmarkLoad(b *testing.B) {
	for _, o := range []Options{RustEcho(b), Behaving("echo")} {
		b.Run(o.Name, func(b *testing.B) {
			for b.Loop() {
				f, err := Load(b.Context(), o)
				if err != nil {
					b.Fatal(err)
				}
				if err := f.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
