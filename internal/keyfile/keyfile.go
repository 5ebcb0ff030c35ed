// Package keyfile keeps nkeys seeds in files that only their owner can read.
// It holds no state and is safe for concurrent use; of several processes that
// create one file at once, one wins and the others read its key.
package keyfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
)

// Load reads the key in a file, or makes one with create and stores it there.
// Missing directories are made with mode 0700. White space around the seed is
// fine. Created reports which it was.
func Load(path string, create func() (nkeys.KeyPair, error)) (kp nkeys.KeyPair, created bool, err error) {
	kp, err = read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return kp, false, err
	}
	kp, err = create()
	if err != nil {
		return nil, false, fmt.Errorf("create key: %w", err)
	}
	err = write(path, kp)
	if errors.Is(err, fs.ErrExist) { // somebody was faster
		kp, err = read(path)
		return kp, false, err
	}
	return kp, err == nil, err
}

func read(path string) (nkeys.KeyPair, error) {
	seed, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	kp, err := nkeys.FromSeed(bytes.TrimSpace(seed))
	if err != nil {
		return nil, fmt.Errorf("%s holds no nkeys seed: %w; restore it or remove it to have a new one made", path, err)
	}
	return kp, nil
}

// write stores a key whole or not at all, and never over another.
func write(path string, kp nkeys.KeyPair) error {
	seed, err := kp.Seed()
	if err != nil {
		return fmt.Errorf("read seed: %w", err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make key directory: %w", err)
	}
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("store key: %w", err)
	}
	_, err = f.Write(seed)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path) // fails if the file exists by now
	}
	return errors.Join(err, os.Remove(f.Name()))
}
