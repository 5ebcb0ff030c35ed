package qemu_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"slices"
	"testing"
	"time"

	"nex"
	"nex/internal/guest"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// agents are those that benchmarks run, by their engine. V8 is there with the
// build tag v8.
var agents = map[nex.Engine]func(testing.TB) string{nex.EngineQuickJS: nextest.StaticAgent}

// take boots a machine for a benchmark.
func take(b *testing.B, l machine.Launcher) *machine.Guest {
	b.Helper()
	p := machine.NewPool(machine.PoolConfig{Launcher: l, Hello: bootTime, Ping: bootTime, Log: slog.New(slog.DiscardHandler)})
	g, err := p.Take(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return g
}

// median reports the median of what operations took.
func median(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
}

// BenchmarkBoot is from the start of a VMM to its agent's hello.
func BenchmarkBoot(b *testing.B) {
	for engine, agent := range agents {
		b.Run(string(engine), func(b *testing.B) {
			l := launcher(b, b.TempDir(), nil, agent(b))
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				g := take(b, l)
				took = append(took, time.Since(began))
				g.Release()
			}
			median(b, took)
		})
	}
}

// BenchmarkInvoke is one call after the other of a function that echoes, through
// the link of a process and of a microVM.
func BenchmarkInvoke(b *testing.B) {
	for engine, agent := range agents {
		for kind, l := range map[string]func(b *testing.B) machine.Launcher{
			"process": func(b *testing.B) machine.Launcher {
				return &machine.Processes{Agent: agent(b), Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)}
			},
			"microvm": func(b *testing.B) machine.Launcher { return launcher(b, b.TempDir(), nil, agent(b)) },
		} {
			b.Run(string(engine)+"/"+kind, func(b *testing.B) {
				g := take(b, l(b))
				defer g.Release()
				deploy(b, g, "js", nex.V8, []byte(`(subject, payload) => payload`), engine)
				payload := []byte("hello")
				var took []time.Duration
				for b.Loop() {
					began := time.Now()
					done := make(chan error, 1)
					g.Invoke(guest.Trigger{ID: "js", Subject: "s", Payload: payload, Timeout: time.Minute}, began.Add(time.Minute), true,
						func(_ guest.Result, err error) { done <- err })
					if err := <-done; err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				median(b, took)
			})
		}
	}
}

// BenchmarkDeploy sends an artifact of 8 MiB.
func BenchmarkDeploy(b *testing.B) {
	l := launcher(b, b.TempDir(), nil, nextest.StaticAgent(b))
	g := take(b, l)
	defer g.Release()
	script := append([]byte("() => 1 //"), bytes.Repeat([]byte("x"), 8<<20)...)
	b.SetBytes(int64(len(script)))
	for b.Loop() {
		deploy(b, g, "js", nex.V8, script, nex.EngineQuickJS)
		if err := g.Undeploy(b.Context(), "js"); err != nil {
			b.Fatal(err)
		}
	}
}

func deploy(b *testing.B, g *machine.Guest, id string, kind nex.WorkloadType, artifact []byte, engine nex.Engine) {
	b.Helper()
	digest := sha256.Sum256(artifact)
	d := guest.Deploy{
		ID: id, Namespace: "n", Name: id, File: id, Type: kind, SHA256: hex.EncodeToString(digest[:]),
		Settings: nex.Settings{Engine: engine, FunctionMemoryMiB: 64},
	}
	if err := g.Deploy(b.Context(), d, bytes.NewReader(artifact), guest.Sink{Log: func(slog.Level, string) {}}); err != nil {
		b.Fatal(err)
	}
}
