//go:build linux

// Command bench measures what a request costs through Nex, beside the same
// request to a plain NATS subscriber in the same run:
//
//	make build && go run ./bench
//
// It starts a NATS server, a subscriber that only responds (the floor), and a
// node with the programs in bin/, deploys echoes of every kind, and puts the
// same load on each. The machine's noise is shared: every target takes its
// turn in every round, and what counts are ratios to the floor.
//
// It runs in the root of the repository and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// options say how much is measured.
type options struct {
	sizes     []int // of payloads, in bytes
	inflight  []int // requests at once
	rounds    int
	turn      time.Duration // of one target in one round
	functions []int         // how many are deployed to measure their memory
	json      string        // file for the report
	profile   string        // file for what perf records
}

var (
	quick = options{
		sizes: []int{16, 64 << 10}, inflight: []int{1, 32}, rounds: 3, turn: 250 * time.Millisecond, functions: []int{1, 100},
	}
	full = options{
		sizes: []int{16, 1 << 10, 64 << 10}, inflight: []int{1, 8, 32, 128}, rounds: 5, turn: time.Second, functions: []int{1, 100, 1000},
	}
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == floorArg {
		floor(os.Args[2])
		return
	}
	isQuick := flag.Bool("quick", false, "measure less, within 50 seconds")
	json := flag.String("json", "", "write the report as JSON to this file")
	only := flag.String("only", "", "measure this target alone, beside the floor")
	size := flag.Int("size", 0, "measure payloads of this many bytes alone")
	inflight := flag.Int("inflight", 0, "measure this many requests in flight alone")
	turn := flag.Duration("turn", 0, "how long one target has its turn in one round")
	idle := flag.Bool("idle", true, "deploy many functions to measure their memory")
	profile := flag.String("profile", "", "record the node and its agents under load into this file, with perf")
	flag.Parse()
	o := full
	if *isQuick {
		o = quick
	}
	o.json = *json
	o.profile = *profile
	if *turn > 0 {
		o.turn = *turn
	}
	if !*idle {
		o.functions = nil
	}
	if *size > 0 {
		o.sizes = []int{*size}
	}
	if *inflight > 0 {
		o.inflight = []int{*inflight}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is the whole benchmark.
func run(ctx context.Context, o options, only string) (err error) {
	dir, err := os.MkdirTemp("", "nex-bench-*")
	if err != nil {
		return fmt.Errorf("make a temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := setStage(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	r := &report{Cold: map[string]float64{}, Idle: map[string]map[string]int{}, RSS: map[string]int{}}
	targets, err := s.deployAll(ctx, r, only)
	if err != nil {
		return err
	}
	s.memory(r, "before")
	recorded, err := s.record(ctx, o.profile)
	if err != nil {
		return err
	}
	if err := errors.Join(s.loadAll(ctx, r, o, targets), recorded()); err != nil {
		return err
	}
	s.memory(r, "after")
	if err := s.hostServices(ctx, r); err != nil {
		return err
	}
	if err := s.idle(ctx, r, o, targets); err != nil {
		return err
	}
	r.print(os.Stdout)
	return r.write(o.json)
}
