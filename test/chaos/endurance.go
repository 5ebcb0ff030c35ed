//go:build linux

package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"nex/internal/nextest"
)

// What a node may have more of at the end of many cycles than at their
// beginning.
const moreMemory = 64 << 20

// samples are how often the cycles are looked at.
const samples = 10

// calm is a world without faults, and a log of what is seen there.
type calm struct {
	*run
	say func(format string, args ...any)
}

// inCalm does something in a world of one node, and returns what was not as it
// should be, then or at the end.
func inCalm(ctx context.Context, o Options, say func(format string, args ...any), do func(context.Context, calm) error) (violations []string, err error) {
	o.Nodes = 1
	r := &run{m: newModel(func(string, ...any) {})}
	defer func() {
		if r.w != nil {
			r.w.end(r.m.violate)
		}
		violations = r.m.report().Violations
	}()
	if r.w, err = newWorld(o); err != nil {
		return nil, fmt.Errorf("make the world: %w", err)
	}
	if err := r.begin(ctx, o); err != nil {
		return nil, err
	}
	return nil, do(ctx, calm{r, say})
}

// Cycle deploys, calls and stops workloads of one kind after the other, as often
// as that until the time is over, and holds what the node takes at the end
// against what it took after the first tenth.
func Cycle(ctx context.Context, o Options, cycles int, limit time.Duration, say func(format string, args ...any)) ([]string, error) {
	return inCalm(ctx, o, say, func(ctx context.Context, c calm) error {
		h := c.w.nodes[0]
		kinds := slices.DeleteFunc(slices.Clone(c.traffic.kinds), func(k *kind) bool { return k.heavy })
		var first, last holding
		begin, done := time.Now(), 0
		for ; done < cycles && time.Since(begin) < limit && ctx.Err() == nil; done++ {
			if err := c.cycle(kinds[done%len(kinds)]); err != nil {
				return fmt.Errorf("cycle %d: %w", done, err)
			}
			if (done+1)%max(cycles/samples, 1) != 0 {
				continue
			}
			var err error
			if last, err = c.hold(h); err != nil {
				return err
			}
			say("%6d cycles: %s", done+1, last)
			if first == (holding{}) {
				first = last
			}
		}
		say("%d cycles in %s", done, time.Since(begin).Round(time.Second))
		if last.memory > first.memory+moreMemory || last.goroutines > first.goroutines+moreGoroutines || last.files > first.files+moreFiles || last.left > first.left {
			c.m.violate("after the first cycles the node took %s, and after the last %s", first, last)
		}
		return ctx.Err()
	})
}

// cycle deploys a workload, calls it once if it is a function, and stops it.
func (c calm) cycle(k *kind) error {
	l := c.traffic.newLoad(k, 0)
	c.m.add(l)
	if c.traffic.deploy(l); l.state != live {
		return errors.New("it was not deployed")
	}
	if !k.service() {
		if err := c.answersNow(*l); err != nil {
			return err
		}
	}
	if c.traffic.stop(l); l.state != stopped {
		return errors.New("it was not stopped")
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	delete(c.m.loads, l.key()) // the model is not to grow
	return nil
}

// holding is what a node holds besides its workloads.
type holding struct {
	footprint
	memory int64 // bytes in memory
	left   int   // files and directories that are of one machine or for a while
}

func (h holding) String() string {
	return fmt.Sprintf("%d MiB, %d goroutines, %d open files, %d temporary files", h.memory>>20, h.goroutines, h.files, h.left)
}

func (c calm) hold(h *host) (holding, error) {
	f, err := measure(h)
	if err != nil {
		return holding{}, err
	}
	f.agents = 0 // some are on their way
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.proc.cmd.Process.Pid))
	if err != nil {
		return holding{}, err
	}
	held := holding{footprint: f}
	for line := range bytes.Lines(status) {
		if text, ok := strings.CutPrefix(string(line), "VmRSS:"); ok {
			kB, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(text), " kB"), 10, 64)
			if err != nil {
				return holding{}, err
			}
			held.memory = kB << 10
		}
	}
	for _, dir := range []string{filepath.Join(h.dir, "workloads"), c.w.temp()} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return holding{}, err
		}
		held.left += len(entries)
	}
	return held, nil
}

// Restart kills the NATS server under load and starts it again, many times, and
// says how many calls that cost, and how long it took until the first answer.
func Restart(ctx context.Context, o Options, restarts int, say func(format string, args ...any)) ([]string, error) {
	return inCalm(ctx, o, say, func(ctx context.Context, c calm) error {
		l := c.traffic.newLoad(c.traffic.kinds[0], 0)
		c.m.add(l)
		if c.traffic.deploy(l); l.state != live {
			return errors.New("it was not deployed")
		}
		load := c.callOnAndOn(ctx, l, max(o.CallsPerSecond, 1))
		defer load.stop()
		var back []time.Duration
		for i := range restarts {
			if !pause(ctx, time.Second) {
				return ctx.Err()
			}
			c.w.server.kill()
			if err := c.w.startServer(); err != nil {
				return fmt.Errorf("restart %d: %w", i, err)
			}
			begin := time.Now()
			for c.answersNow(*l) != nil {
				if time.Since(begin) > nextest.Patience {
					c.m.violate("nobody answers %s after restart %d", nextest.Patience, i)
					return nil
				}
			}
			back = append(back, time.Since(begin))
		}
		load.stop()
		slices.Sort(back)
		say("first good reply after NATS was ready again: half within %s, all within %s", back[len(back)/2].Round(time.Millisecond), back[len(back)-1].Round(time.Millisecond))
		say("%d calls, %d answered; not answered: %s", load.made.Load(), load.answered.Load(), list(load.errors()))
		if c.traffic.stop(l); l.state != stopped {
			return errors.New("it was not stopped")
		}
		return nil
	})
}

// caller calls a function again and again.
type caller struct {
	made, answered atomic.Int64
	cancel         context.CancelFunc
	all            sync.WaitGroup

	mu   sync.Mutex
	lost map[string]int // by what the client was told
}

func (c *caller) stop() {
	c.cancel()
	c.all.Wait()
}

func (c *caller) errors() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c calm) callOnAndOn(ctx context.Context, l *load, perSecond int) *caller {
	ctx, cancel := context.WithCancel(ctx)
	all := &caller{cancel: cancel, lost: map[string]int{}}
	all.all.Go(func() {
		for pause(ctx, time.Second/time.Duration(perSecond)) {
			all.all.Go(func() { all.call(c.w.nc, l.subject) })
		}
	})
	return all
}

func (c *caller) call(nc *nats.Conn, subject string) {
	c.made.Add(1)
	m, err := nc.Request(subject, []byte("x"), 3*time.Second)
	if err == nil && m.Header.Get("Nats-Service-Error") == "" {
		c.answered.Add(1)
		return
	}
	why := "typed error"
	if err != nil {
		why = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost[why]++
}
