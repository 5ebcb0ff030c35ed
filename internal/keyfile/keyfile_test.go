package keyfile_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nkeys"

	"nex/internal/keyfile"
)

func public(t *testing.T, kp nkeys.KeyPair) string {
	t.Helper()
	p, err := kp.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadCreatesOnceAndKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "issuer.nk")
	first, created, err := keyfile.Load(path, nkeys.CreateAccount)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if fi, err := os.Stat(p); err != nil || fi.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", p, fi.Mode().Perm(), err)
		}
	}
	again, created, err := keyfile.Load(path, nkeys.CreateAccount)
	if err != nil || created || public(t, again) != public(t, first) {
		t.Errorf("another key came back: created %v, %v", created, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".key-*")); len(left) > 0 {
		t.Errorf("left behind %v", left)
	}
}

func TestLoadToleratesNewlinesAndRefusesRubbish(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	kp, err := nkeys.CreateCurveKeys()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := kp.Seed()
	if err := os.WriteFile(path, append(seed, "\r\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _, err := keyfile.Load(path, nkeys.CreateCurveKeys); err != nil || public(t, got) != public(t, kp) {
		t.Errorf("seed with a newline: %v", err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keyfile.Load(path, nkeys.CreateAccount); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("rubbish: %v", err)
	}
}

func TestConcurrentLoadsAgree(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	keys := make([]string, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			kp, _, err := keyfile.Load(path, nkeys.CreateAccount)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = public(t, kp)
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] {
			t.Fatalf("keys differ: %v", keys)
		}
	}
}
