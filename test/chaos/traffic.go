//go:build linux

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"nex"
)

const (
	// requestPatience is how long a deploy or a stop is waited for.
	requestPatience = 45 * time.Second
	// loadsPerNode is about how many workloads a node has.
	loadsPerNode = 8
	// mostRequests is how many deploys and stops may be under way at once.
	mostRequests = 6
)

// traffic asks nodes and workloads for things. One goroutine decides, from its
// own random numbers, so that a seed gives the same traffic whatever comes back.
type traffic struct {
	w        *world
	m        *model
	kinds    []*kind
	keys     nex.Keys
	random   *rand.Rand
	requests sync.WaitGroup
	slots    chan struct{}
	named    int
	calls    uint64
}

// run makes traffic until ctx ends, and returns when what it asked for is
// answered or given up.
func (t *traffic) run(ctx context.Context, callsPerSecond int) {
	gap := time.Second / time.Duration(callsPerSecond)
	next, nextChange := time.Now(), time.Now()
	for pause(ctx, time.Until(next)) {
		next = next.Add(time.Duration(2 * t.random.Float64() * float64(gap)))
		if time.Now().After(nextChange) {
			nextChange = nextChange.Add(time.Duration(300+t.random.IntN(1200)) * time.Millisecond)
			t.change()
		}
		t.call()
	}
	t.requests.Wait()
}

// change deploys or stops a workload.
func (t *traffic) change() {
	number, deploy, node := t.random.Uint64(), t.random.IntN(2*loadsPerNode*len(t.w.nodes)), t.random.IntN(len(t.w.nodes))
	kind, copied := t.draw(), t.random.IntN(4) == 0
	select {
	case t.slots <- struct{}{}:
	default:
		return // enough is under way
	}
	if len(t.m.in(-1, asked, live)) <= deploy {
		l := t.newCopy(number, node)
		if !copied || l == nil {
			l = t.newLoad(kind, node)
		}
		t.m.add(l)
		t.requests.Go(func() { defer func() { <-t.slots }(); t.deploy(l) })
		return
	}
	l := t.m.pick(number, func(l *load) bool { return l.state == live })
	if l == nil { // those there were are not deployed yet
		<-t.slots
		return
	}
	t.requests.Go(func() { defer func() { <-t.slots }(); t.stop(l) })
}

// draw picks a kind.
func (t *traffic) draw() *kind {
	total := 0
	for _, k := range t.kinds {
		total += k.weight
	}
	n := t.random.IntN(total)
	for _, k := range t.kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	panic("unreachable")
}

func (t *traffic) newLoad(k *kind, node int) *load {
	t.named++
	name := fmt.Sprintf("%s%d", k.name, t.named)
	return &load{name: name, subject: "chaos.w." + name, node: node, kind: k}
}

// newCopy is a workload like one that another node has, nil if there is none. They
// share the calls.
func (t *traffic) newCopy(number uint64, node int) *load {
	original := t.m.pick(number, func(l *load) bool {
		_, there := t.m.loads[(&load{name: l.name, node: node}).key()]
		return l.state == live && !l.kind.service() && !there
	})
	if original == nil {
		return nil
	}
	return &load{name: original.name, subject: original.subject, node: node, kind: original.kind}
}

func (t *traffic) target(h *host) nex.Target {
	return nex.Target{Namespace: t.w.client.Namespace(), Node: h.id, Xkey: h.xkey}
}

// deploy asks for a workload and notes what became of it.
func (t *traffic) deploy(l *load) {
	h, began := t.w.nodes[l.node], time.Now()
	request, err := t.keys.Deploy(l.kind.workload(l, "nats://"+t.w.addr), t.target(h))
	if err != nil {
		t.m.violate("no request for %s: %v", l, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	reply, err := t.w.client.Deploy(ctx, h.id, request)
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	c := &t.m.counts
	c.deploys++
	if err == nil {
		c.deployed++
		l.state, l.id = live, reply.ID
		t.m.log("deployed %s in %s", l, time.Since(began).Round(time.Millisecond))
		return
	}
	t.m.log("deploy of %s: %v", l, err)
	if l.state = refused; lost(err) {
		l.state = unsure
		c.deploysLost++
	} else {
		c.deployErrors[nex.CodeOf(err)]++
	}
	if nex.CodeOf(err) == nex.Internal && l.state == refused {
		t.m.violateLocked("the deploy of %s is refused as %s, which no fault here is: %v", l, nex.Internal, err)
	}
	if !t.m.disturbedLocked(began.Add(-unsettled), time.Now(), l.node, anyFault) {
		t.m.violateLocked("the deploy of %s, asked for at %.3f s, failed though there was no fault: %v", l, began.Sub(t.m.begun).Seconds(), err)
	}
}

// lost reports whether an error says nothing about what became of a request: it
// is none of a node, or that of a client that waited in vain.
func lost(err error) bool {
	var typed *nex.Error
	return !errors.As(err, &typed) || typed.Code == nex.Timeout
}

// stop asks for a workload's end and notes what became of it.
func (t *traffic) stop(l *load) {
	h, began := t.w.nodes[l.node], time.Now()
	t.m.set(l.key(), func(l *load) { l.state = stopping })
	request, err := t.keys.Stop(l.name, l.id, t.target(h))
	if err != nil {
		t.m.violate("no request to stop %s: %v", l, err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestPatience)
	defer cancel()
	_, err = t.w.client.Stop(ctx, h.id, request)
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	c := &t.m.counts
	c.stops++
	switch {
	case err == nil:
		c.stopped++
		l.state, l.stopped = stopped, time.Now()
		l.calm = !t.m.disturbedLocked(began, time.Now(), l.node, faultKind.losesEvents)
		t.m.log("stopped %s in %s", l, time.Since(began).Round(time.Millisecond))
		return
	case nex.CodeOf(err) == nex.NoSuchNode:
		l.state = live // nobody heard it
	case lost(err):
		l.state = stopUnsure
		c.stopsLost++
	default:
		t.m.violateLocked("the stop of %s, asked for at %.3f s, is refused: %v", l, began.Sub(t.m.begun).Seconds(), err)
		l.state = stopUnsure
	}
	if !lost(err) {
		c.stopErrors[nex.CodeOf(err)]++
	}
	t.m.log("stop of %s: %v", l, err)
	if !t.m.disturbedLocked(began.Add(-unsettled), time.Now(), l.node, anyFault) {
		t.m.violateLocked("the stop of %s, asked for at %.3f s, failed though there was no fault: %v", l, began.Sub(t.m.begun).Seconds(), err)
	}
}

// call sends a message to some workload.
func (t *traffic) call() {
	number, heavy, exit := t.random.Uint64(), t.random.IntN(16) == 0, t.random.IntN(100) == 0
	l := t.m.pick(number, func(l *load) bool {
		return (l.state == live || l.state == stopping || l.state == stopped && time.Since(l.stopped) < time.Second) && (heavy || !l.kind.heavy)
	})
	if l == nil {
		return
	}
	payload := fmt.Sprintf("call %d", t.calls)
	if l.kind.service() && exit {
		_ = t.w.nc.Publish(l.subject, fmt.Append(nil, exitWord, 3)) // it may get lost
		return
	}
	t.send(l, payload)
}

// send makes a call.
func (t *traffic) send(l *load, payload string) *call {
	t.calls++
	c := t.m.newCall(l, t.calls, payload)
	if err := t.w.nc.PublishRequest(l.subject, fmt.Sprint(replyPrefix, c.id), []byte(payload)); err != nil {
		t.m.unsent(c)
	}
	return c
}
