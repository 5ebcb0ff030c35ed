//go:build linux

package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"nex"
)

// kind is what a workload does.
type kind struct {
	name     string
	typ      nex.WorkloadType
	weight   int // how often it is deployed, beside the others
	heavy    bool
	artifact []byte
	settings nex.Settings
	// answers are the codes with which calls of it may fail besides those of any
	// function.
	answers []nex.Code
	// reply is what a call of it is answered with, nil if it always fails.
	reply func(payload, subject string) string

	location nex.Location
	sha256   string
}

func (k *kind) service() bool { return k.typ == nex.Native }

// timeout is how long a call may take.
func (k *kind) timeout() time.Duration { return k.settings.FunctionTimeout() }

func same(payload, _ string) string { return payload }

// bucket holds the artifacts.
const bucket = "CHAOS"

// newKinds makes the workloads that there may be, and stores their artifacts.
func (w *world) newKinds(ctx context.Context) ([]*kind, error) {
	module, err := os.ReadFile("../../examples/wasm/echofunction/echofunction.wasm")
	if err != nil {
		return nil, err
	}
	service := fmt.Appendf(nil, "#!/bin/sh\nexec '%s'\n", filepath.Join(w.dir, serviceName))
	function := func(timeoutMS int) nex.Settings {
		return nex.Settings{FunctionTimeoutMS: timeoutMS, FunctionMemoryMiB: 48}
	}
	restart := func(p nex.RestartPolicy) nex.Settings {
		return nex.Settings{Restart: nex.Restart{Policy: p}, StopGraceMS: 1000}
	}
	kinds := []*kind{
		{name: "echo", typ: nex.V8, weight: 8, artifact: []byte(`(subject, payload) => payload`), settings: function(2000), reply: same},
		{name: "throw", typ: nex.V8, weight: 2, artifact: []byte(`() => { throw new Error("boom") }`), settings: function(2000), answers: []nex.Code{nex.Exception}},
		{name: "sleep", typ: nex.V8, weight: 2, settings: function(2000), reply: same, artifact: []byte(
			`async (subject, payload) => { await new Promise(done => setTimeout(done, 50 + Math.random() * 450)); return payload }`)},
		{name: "hog", typ: nex.V8, weight: 1, heavy: true, settings: function(2000), answers: []nex.Code{nex.OutOfMemory, nex.Exception, nex.Timeout},
			artifact: []byte(`() => { const all = []; for (;;) all.push(new Array(10000).fill(0.5)) }`)},
		{name: "loop", typ: nex.V8, weight: 1, heavy: true, settings: function(200), artifact: []byte(`() => { for (;;) {} }`), answers: []nex.Code{nex.Timeout}},
		{name: "wasm", typ: nex.Wasm, weight: 4, artifact: module, settings: function(2000), reply: func(payload, subject string) string { return payload + subject }},
		{name: "always", typ: nex.Native, weight: 1, artifact: service, settings: restart(nex.RestartAlways), reply: same},
		{name: "onfailure", typ: nex.Native, weight: 1, artifact: service, settings: restart(nex.RestartOnFailure), reply: same},
	}
	js, err := jetstream.New(w.nc)
	if err != nil {
		return nil, err
	}
	store, err := js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: bucket})
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if _, err := store.PutBytes(ctx, k.name, k.artifact); err != nil {
			return nil, err
		}
		if k.location, err = nex.ParseLocation("nats://" + bucket + "/" + k.name); err != nil {
			return nil, err
		}
		sum := sha256.Sum256(k.artifact)
		k.sha256 = hex.EncodeToString(sum[:])
	}
	return kinds, nil
}

// workload is what a client asks for to have one of this kind.
func (k *kind) workload(l *load, natsURL string) nex.Workload {
	w := nex.Workload{Name: l.name, Type: k.typ, Location: k.location, SHA256: k.sha256, SourceName: k.name, Settings: k.settings}
	if k.service() {
		w.Settings.Ready = nex.Ready{Subject: l.subject, EveryMS: 1000, TimeoutMS: 1000}
		w.HostServices = &nex.NATSAccess{URL: natsURL}
		w.Environment = map[string]string{serviceURL: natsURL, serviceSubject: l.subject}
	} else {
		w.TriggerSubjects = []string{l.subject}
	}
	return w
}
