//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
)

// Options say what a run is like.
type Options struct {
	Seed           uint64
	Duration       time.Duration // of traffic and faults; what comes after is short
	Nodes          int
	CallsPerSecond int
	Pace           int  // faults come and go this many times as fast; 0 is 1
	LightOnly      bool // no faults that excuse a lost call
	Plant          Plant
	LogDir         string // where logs go
}

// run is one run.
type run struct {
	w       *world
	m       *model
	traffic *traffic
	before  []footprint
}

// Run drives a world through a plan and reports what it found. Errors are of the
// driver, which cannot run then. Nothing is left when it returns.
func Run(ctx context.Context, o Options) (report Report, err error) {
	file, err := os.Create(filepath.Join(o.LogDir, "driver.log"))
	if err != nil {
		return Report{}, err
	}
	defer file.Close() // what is lost of the log is no reason to fail
	var mu sync.Mutex
	var m *model
	m = newModel(func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(file, "%8.3f %s\n", time.Since(m.begun).Seconds(), fmt.Sprintf(format, args...))
	})
	r := &run{m: m}
	defer func() {
		if r.w != nil {
			r.w.end(m.violate)
		}
		r.readLogs(o.LogDir)
		report = m.report()
	}()
	if r.w, err = newWorld(o); err != nil {
		return report, fmt.Errorf("make the world: %w", err)
	}
	if err := r.begin(ctx, o); err != nil {
		return report, err
	}
	r.drive(ctx, o)
	if err := ctx.Err(); err != nil {
		return report, fmt.Errorf("drive the world: %w", err)
	}
	r.finish(ctx)
	return report, nil
}

// begin prepares traffic, lets each node run something once, and notes what the
// nodes take without workloads.
func (r *run) begin(ctx context.Context, o Options) error {
	kinds, err := r.w.newKinds(ctx)
	if err != nil {
		return fmt.Errorf("store artifacts: %w", err)
	}
	issuer, err := nkeys.CreateAccount()
	if err != nil {
		return err
	}
	sender, err := nkeys.CreateCurveKeys()
	if err != nil {
		return err
	}
	r.traffic = &traffic{
		w: r.w, m: r.m, kinds: kinds, keys: nex.Keys{Issuer: issuer, Sender: sender},
		random: rand.New(rand.NewPCG(o.Seed, 1)), slots: make(chan struct{}, mostRequests),
	}
	if err := errors.Join(r.listen("$NEX.events.*.*", func(m *nats.Msg) {
		if e, err := nex.ParseEvent(m.Subject, m.Data); err == nil && e.Namespace == r.w.client.Namespace() {
			r.m.event(e)
		}
	}), r.listen(replyPrefix+"*", r.m.reply)); err != nil {
		return err
	}
	for _, h := range r.w.nodes {
		for _, k := range []*kind{kinds[0], kinds[len(kinds)-1]} {
			l := r.traffic.newLoad(k, h.index)
			r.m.add(l)
			if r.traffic.deploy(l); l.state != live {
				return fmt.Errorf("node %d does not run %s", h.index, l.name)
			}
			r.traffic.stop(l)
		}
		f, err := measure(h)
		if err != nil {
			return fmt.Errorf("node %d: %w", h.index, err)
		}
		r.before = append(r.before, f)
	}
	if o.Plant == LeakedAgent {
		return os.WriteFile(filepath.Join(r.w.dir, leakMarker), nil, 0o600)
	}
	return nil
}

func (r *run) listen(subject string, hear func(*nats.Msg)) error {
	sub, err := r.w.nc.Subscribe(subject, hear)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	return err
}

// drive makes traffic and faults for as long as they are to be.
func (r *run) drive(ctx context.Context, o Options) {
	r.m.begun = time.Now()
	r.m.log("begun at %s with seed %d: %d nodes for %s", r.m.begun.Format(time.DateTime), o.Seed, o.Nodes, o.Duration)
	steps := plan(rand.New(rand.NewPCG(o.Seed, uint64(2+o.Nodes))), o)
	for _, s := range steps {
		r.m.log("plan: %s", s)
	}
	driving, end := context.WithTimeout(ctx, o.Duration)
	defer end()
	watching, enough := context.WithCancel(ctx)
	var all, watch sync.WaitGroup
	j := &injector{w: r.w, m: r.m, disks: make([]sync.Mutex, o.Nodes), links: make([]sync.Mutex, o.Nodes)}
	all.Go(func() { r.traffic.run(driving, o.CallsPerSecond) })
	all.Go(func() { j.run(driving, steps) })
	watch.Go(func() { r.watch(watching) })
	all.Wait()
	enough()
	watch.Wait()
}

// busy is how late the driver may be before calls are excused by that.
const busy = 2 * time.Second

// watch judges calls until ctx ends, finds out when the driver itself does not
// get the processor, and when a node ends by itself.
func (r *run) watch(ctx context.Context) {
	ended := make([]bool, len(r.w.nodes))
	for last := time.Now(); pause(ctx, look); last = time.Now() {
		now := time.Now()
		if now.Sub(last) > busy {
			f := r.m.begin(hostBusy, -1, fmt.Sprintf("host busy for %s", now.Sub(last)))
			r.m.mu.Lock()
			f.begin = last
			r.m.mu.Unlock()
			r.m.over(f)
		}
		r.m.judge(now)
		r.w.noteMachines()
		for i, h := range r.w.nodes {
			if !ended[i] && h.endedByItself() {
				ended[i] = true
				r.m.violate("node %d ended by itself: %v", i, h.proc.err)
			}
		}
	}
}

// endedByItself reports whether the node's process is gone while nobody ends it.
func (h *host) endedByItself() bool {
	if !h.mu.TryLock() {
		return false
	}
	defer h.mu.Unlock()
	select {
	case <-h.proc.ended:
		return true
	default:
		return false
	}
}

// finish lets the world come to rest, holds it against the model, and stops all
// workloads but a few, with which the nodes are to end.
func (r *run) finish(ctx context.Context) {
	r.m.log("rest")
	r.rest(ctx)
	r.takeStock(ctx)
	r.m.judge(time.Now().Add(time.Hour)) // calls have had their time in the rest
	var stops sync.WaitGroup
	for _, l := range r.m.in(-1, live) {
		stops.Go(func() { r.traffic.stop(r.m.loads[l.key()]) })
	}
	stops.Wait()
	for i, h := range r.w.nodes {
		r.settle(ctx, h, r.before[i])
	}
	if err := r.w.nc.FlushTimeout(requestPatience); err != nil {
		r.m.violate("the server does not answer: %v", err)
	}
	r.m.checkEvents()
	for _, h := range r.w.nodes {
		for _, k := range r.traffic.kinds {
			l := r.traffic.newLoad(k, h.index)
			r.m.add(l)
			r.traffic.deploy(l)
		}
	}
}

// readLogs looks for what no process should have to say.
func (r *run) readLogs(dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.log")) // the pattern is good
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			r.m.violate("read a log: %v", err)
		}
		for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: ", "goroutine 1 ["} {
			if filepath.Base(f) != "driver.log" && strings.Contains(string(text), bad) {
				r.m.violate("%s holds %q", filepath.Base(f), bad)
			}
		}
	}
}
