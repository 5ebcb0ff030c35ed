//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
)

// patience bounds each step of the preparation.
const patience = 30 * time.Second

// floorArg makes this program the floor.
const floorArg = "floor"

// rawSubject is where the floor answers.
const rawSubject = "bench.raw"

// floor answers every message with itself, until its standard input ends, and
// makes calls of the kind that host services make for functions.
func floor(url string) {
	nc, err := nats.Connect(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if _, err := nc.Subscribe(rawSubject, func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := goCalls(nc); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// stage is everything the load needs.
type stage struct {
	dir    string
	server *server.Server
	nc     *nats.Conn
	client *nex.Client
	keys   nex.Keys
	node   nex.NodeInfo
	nodes  *exec.Cmd
	floor  *exec.Cmd
}

// setStage starts the server, the floor and the node.
func setStage(ctx context.Context, dir string) (_ *stage, err error) {
	s := &stage{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	s.server, err = server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(dir, "nats"), NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, fmt.Errorf("set up NATS server: %w", err)
	}
	s.server.Start()
	if !s.server.ReadyForConnections(patience) {
		return nil, errors.New("the NATS server did not start")
	}
	url := s.server.ClientURL()
	if s.nc, err = nats.Connect(url); err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	if s.client, err = nex.NewClient(s.nc, "bench"); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s.floor = exec.CommandContext(ctx, self, floorArg, url)
	if _, err = s.floor.StdinPipe(); err != nil { // it ends with us
		return nil, err
	}
	if err = s.floor.Start(); err != nil {
		return nil, fmt.Errorf("start the floor: %w", err)
	}
	return s, s.startNode(ctx, url)
}

func (s *stage) startNode(ctx context.Context, url string) error {
	config := filepath.Join(s.dir, "config.json")
	if err := os.WriteFile(config, []byte(`{"no_sandbox": true, "machine_pool_size": 2}`), 0o600); err != nil {
		return err
	}
	s.nodes = exec.CommandContext(ctx, "bin/nex", "node", "up", "--config", config, "--state-dir", filepath.Join(s.dir, "state"), "-s", url, "--loglevel", "warn")
	s.nodes.Stderr = os.Stderr
	s.nodes.Cancel = func() error { return s.nodes.Process.Signal(os.Interrupt) }
	s.nodes.WaitDelay = patience
	if err := s.nodes.Start(); err != nil {
		return fmt.Errorf("start the node (run \"make build\" first): %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for every := time.NewTicker(20 * time.Millisecond); ; {
		for n, err := range s.client.Nodes(ctx, nex.NodeFilter{Count: 1}) {
			if err != nil {
				return err
			}
			every.Stop()
			s.node = n
			return s.makeKeys()
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return errors.New("the node does not answer")
		}
	}
}

func (s *stage) makeKeys() (err error) {
	if s.keys.Issuer, err = nkeys.CreateAccount(); err != nil {
		return err
	}
	s.keys.Sender, err = nkeys.CreateCurveKeys()
	return err
}

// close ends what was started, by its process id.
func (s *stage) close() error {
	var errs []error
	if s.nodes != nil && s.nodes.Process != nil {
		errs = append(errs, s.nodes.Process.Signal(os.Interrupt))
		if err := s.nodes.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("the node: %w", err))
		}
	}
	if s.floor != nil && s.floor.Process != nil {
		errs = append(errs, s.floor.Process.Signal(syscall.SIGTERM))
		_ = s.floor.Wait() // it always ends by the signal
	}
	if s.nc != nil {
		s.nc.Close()
	}
	if s.server != nil {
		s.server.Shutdown()
		s.server.WaitForShutdown()
	}
	return errors.Join(errs...)
}

// upload stores an artifact.
func (s *stage) upload(ctx context.Context, name string, data []byte) (nex.Workload, error) {
	js, err := jetstream.New(s.nc)
	if err != nil {
		return nex.Workload{}, err
	}
	bucket, err := js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "BENCH"})
	if err != nil {
		return nex.Workload{}, fmt.Errorf("make a bucket: %w", err)
	}
	if _, err := bucket.PutBytes(ctx, name, data); err != nil {
		return nex.Workload{}, fmt.Errorf("upload %s: %w", name, err)
	}
	location, err := nex.ParseLocation("nats://BENCH/" + name)
	sum := sha256.Sum256(data)
	return nex.Workload{Name: name, Location: location, SHA256: hex.EncodeToString(sum[:])}, err
}

// deploy runs a workload and returns its id.
func (s *stage) deploy(ctx context.Context, w nex.Workload) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	target := nex.Target{Namespace: s.client.Namespace(), Node: s.node.NodeID, Xkey: s.node.TargetXkey}
	req, err := s.keys.Deploy(w, target)
	if err != nil {
		return "", err
	}
	reply, err := s.client.Deploy(ctx, s.node.NodeID, req)
	if err != nil {
		return "", fmt.Errorf("deploy %s: %w", w.Name, err)
	}
	return reply.ID, nil
}

func (s *stage) stop(ctx context.Context, name, id string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := s.keys.Stop(name, id, nex.Target{Namespace: s.client.Namespace(), Node: s.node.NodeID})
	if err == nil {
		_, err = s.client.Stop(ctx, s.node.NodeID, req)
	}
	return err
}

// record has perf watch the node and its agents until the function that it
// returns is called. Without a file it does nothing.
func (s *stage) record(ctx context.Context, file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	pids := []string{strconv.Itoa(s.nodes.Process.Pid)}
	for _, pid := range children(s.nodes.Process.Pid) {
		pids = append(pids, strconv.Itoa(pid))
	}
	perf := exec.CommandContext(ctx, "perf", "record", "-q", "-g", "-F", "999", "-o", file, "-p", strings.Join(pids, ","))
	perf.Stderr = os.Stderr
	if err := perf.Start(); err != nil {
		return nil, fmt.Errorf("start perf (Debian's package linux-perf): %w", err)
	}
	return func() error {
		if err := perf.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		_ = perf.Wait() // it ends by the signal
		return nil
	}, nil
}
