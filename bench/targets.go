//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
)

// target is something that answers on a subject.
type target struct {
	name    string
	subject string
}

const rawTarget = "raw"

// script echoes.
const script = "(subject, payload) => payload"

// deployAll deploys an echo of every kind, cold, and measures how long it takes
// from the request that is sent to the first good reply.
func (s *stage) deployAll(ctx context.Context, r *report, only string) ([]target, error) {
	targets := []target{{rawTarget, rawSubject}}
	native, err := s.buildService(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range []struct {
		name string
		typ  nex.WorkloadType
		file string // "" for the script
		with nex.Settings
	}{
		{"native", nex.Native, native, nex.Settings{}},
		{"js", nex.V8, "", nex.Settings{Engine: nex.EngineV8}},
		{"js-quickjs", nex.V8, "", nex.Settings{Engine: nex.EngineQuickJS}},
		{"wasm", nex.Wasm, "examples/wasm/echofunction/echofunction.wasm", nex.Settings{}},
		{"wasm-reactor", nex.Wasm, "examples/wasm/reactor/reactor.wasm", nex.Settings{}},
	} {
		if only != "" && only != k.name {
			continue
		}
		data := []byte(script)
		if k.file != "" {
			if data, err = os.ReadFile(k.file); err != nil {
				return nil, err
			}
		}
		w, err := s.upload(ctx, k.name, data)
		if err != nil {
			return nil, err
		}
		t := target{k.name, "bench." + k.name}
		w.Type, w.Settings = k.typ, k.with
		if k.typ == nex.Native {
			t.subject = "svc.echo"
			w.Environment = map[string]string{"NATS_URL": s.server.ClientURL()}
		} else {
			w.TriggerSubjects = []string{t.subject}
		}
		if r.Cold[k.name], err = s.cold(ctx, w, t); err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	return targets, s.checkAll(targets)
}

// cold deploys a workload three times and returns the median of the times to
// the first reply, in milliseconds. The last copy stays.
func (s *stage) cold(ctx context.Context, w nex.Workload, t target) (float64, error) {
	const tries = 5
	var took []float64
	for i := range tries {
		time.Sleep(500 * time.Millisecond) // the pool of machines is full again
		start := time.Now()
		id, err := s.deploy(ctx, w)
		if err != nil {
			return 0, err
		}
		if err := s.firstReply(ctx, t); err != nil {
			return 0, err
		}
		took = append(took, float64(time.Since(start).Microseconds())/1000)
		if i == tries-1 {
			break
		}
		if err := s.stop(ctx, w.Name, id); err != nil {
			return 0, err
		}
	}
	slices.Sort(took)
	return took[tries/2], nil
}

// firstReply asks until somebody answers: a service may come up later than its
// process.
func (s *stage) firstReply(ctx context.Context, t target) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		m, err := s.nc.RequestWithContext(ctx, t.subject, []byte("first"))
		switch {
		case err == nil && bytes.HasPrefix(m.Data, []byte("first")):
			return nil
		case err == nil:
			return fmt.Errorf("%s answers %q %v", t.name, m.Data, m.Header)
		case ctx.Err() != nil:
			return fmt.Errorf("%s does not answer: %w", t.name, err)
		}
	}
}

// checkAll makes sure that every target echoes what is sent.
func (s *stage) checkAll(targets []target) error {
	for _, t := range targets {
		for _, size := range []int{0, 1, 16, 64 << 10} {
			payload := bytes.Repeat([]byte{0xff, 0, 'x'}, size/3+1)[:size]
			m, err := s.nc.Request(t.subject, payload, patience)
			if err != nil || !bytes.HasPrefix(m.Data, payload) {
				return fmt.Errorf("%s does not echo %d bytes: %w", t.name, size, err)
			}
		}
	}
	return nil
}

func (s *stage) buildService(ctx context.Context) (string, error) {
	path := filepath.Join(s.dir, "echoservice")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./examples/native/echoservice")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the service: %w: %s", err, out)
	}
	return path, nil
}

// connect returns a connection for load alone.
func (s *stage) connect() (*nats.Conn, error) { return nats.Connect(s.server.ClientURL()) }
