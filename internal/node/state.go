package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nkeys"

	"nex/internal/cgroup"
	"nex/internal/keyfile"
	"nex/internal/machine"
	"nex/internal/machine/firecracker"
)

// state is a node's directory:
//
//	lock          held by the one node that uses the directory
//	identity/     node.nk and node.xk, seeds; issuer.nk if the node starts workloads
//	machines/ID/  one per machine, removed with it
//	records/ID/   what a machine has elsewhere: its network, its jail
//	workloads/    what the node has promised to run, a file each
//	artifacts/    by SHA-256
//	images/       what microVMs boot, a directory per image
//	disks/        empty disks of microVMs, to be copied
//	wasm/         compiled WebAssembly, a directory per namespace
//	nats/         streams of the public NATS server
//	replays       requests that were taken, until their claims expire
type state struct {
	dir  string
	lock *flock.Flock
}

// DefaultStateDir is where a node keeps its state unless told otherwise:
// /var/lib/nex for root, else nex below $XDG_STATE_HOME or ~/.local/state.
func DefaultStateDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/nex", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "nex"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a directory for the node's state: %w; set \"state_dir\" or --state-dir", err)
	}
	return filepath.Join(home, ".local", "state", "nex"), nil
}

// openState takes a state directory for this process.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w (choose another with --state-dir or \"state_dir\")", err)
	}
	s := &state{dir: dir, lock: flock.New(filepath.Join(dir, "lock"), flock.SetPermissions(0o600))}
	locked, err := s.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	if !locked {
		return nil, fmt.Errorf("state directory %s is in use by another node: stop it or give this one its own with --state-dir", dir)
	}
	return s, nil
}

// sweepTime bounds how long the end of what machines left is waited for, of their processes all together and
// of the rest for each.
const sweepTime = 10 * time.Second

// clear removes what machines of a node that was killed left, known by their
// directories and by what is recorded of them. Agents die with the node that started them; their files stay, and
// their cgroups, with what services started in sessions of its own. What cannot be
// removed is said, and tried again by the next start.
func (s *state) clear(cfg Config, groups *cgroup.Root) error {
	ids := map[string]bool{}
	for _, dir := range []string{s.machines(), s.records()} {
		left, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, machine := range left {
			ids[machine.Name()] = true
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	if groups.Sweep(ctx, slices.Sorted(maps.Keys(ids))...) == nil {
		groups = nil // nothing is left to be looked for one by one
	}
	for id := range ids {
		if err := s.clearMachine(cfg, groups, id); err != nil {
			cfg.Log.Error("What a machine left cannot be removed: it is tried again when the node starts", "machine", id, "error", err)
		}
	}
	return os.MkdirAll(s.machines(), 0o700)
}

// clearMachine removes what is left of a machine. Its processes end first: those
// in groups, and what is recorded.
func (s *state) clearMachine(cfg Config, groups *cgroup.Root, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), sweepTime)
	defer cancel()
	records := filepath.Join(s.records(), id)
	err := groups.Sweep(ctx, id)
	if err == nil {
		err = firecracker.Sweep(ctx, records)
	}
	if err == nil {
		err = s.sweepNetwork(ctx, cfg, records)
	}
	if err != nil {
		return err
	}
	return errors.Join(machine.RemoveAll(filepath.Join(s.machines(), id)), machine.RemoveAll(records))
}

func (s *state) machines() string  { return filepath.Join(s.dir, "machines") }
func (s *state) records() string   { return filepath.Join(s.dir, "records") }
func (s *state) artifacts() string { return filepath.Join(s.dir, "artifacts") }
func (s *state) disks() string     { return filepath.Join(s.dir, "disks") }
func (s *state) compiled() string  { return filepath.Join(s.dir, "wasm") }
func (s *state) server() string    { return filepath.Join(s.dir, "nats") }

func (s *state) close() error {
	if err := s.lock.Unlock(); err != nil {
		return fmt.Errorf("unlock state directory: %w", err)
	}
	return nil
}

// identity is who a node is: its id and what opens requests sealed for it.
type identity struct {
	id   string
	xkey string
	open nkeys.KeyPair // the curve key
}

// issuer reads the key that signs for the workloads in the node's
// configuration, or makes it the first time.
func (s *state) issuer() (nkeys.KeyPair, error) {
	path := filepath.Join(s.dir, "identity", "issuer.nk")
	key, _, err := keyfile.Load(path, nkeys.CreateAccount)
	if err != nil {
		return nil, err
	}
	if public, err := key.PublicKey(); err != nil || !nkeys.IsValidPublicAccountKey(public) {
		return nil, fmt.Errorf("%s must hold the seed of an account: restore it or remove it to have a new one made", path)
	}
	return key, nil
}

// identity reads the node's keys, or makes them the first time.
func (s *state) identity() (identity, error) {
	dir := filepath.Join(s.dir, "identity")
	server, _, err := keyfile.Load(filepath.Join(dir, "node.nk"), nkeys.CreateServer)
	if err != nil {
		return identity{}, err
	}
	curve, _, err := keyfile.Load(filepath.Join(dir, "node.xk"), nkeys.CreateCurveKeys)
	if err != nil {
		return identity{}, err
	}
	id, err := server.PublicKey()
	if err != nil {
		return identity{}, fmt.Errorf("read node id: %w", err)
	}
	xkey, err := curve.PublicKey()
	if err != nil {
		return identity{}, fmt.Errorf("read node xkey: %w", err)
	}
	if !nkeys.IsValidPublicServerKey(id) || !nkeys.IsValidPublicCurveKey(xkey) {
		return identity{}, fmt.Errorf("%s must hold the seeds of a server key and of a curve key: restore them or remove the directory to have new ones made", dir)
	}
	return identity{id: id, xkey: xkey, open: curve}, nil
}
