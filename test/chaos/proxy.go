//go:build linux

package chaos

import (
	"context"
	"net"
	"sync"
	"time"
)

// proxy is what a node takes for its NATS server. It passes everything on, until
// it is told otherwise. Safe for concurrent use.
type proxy struct {
	listener net.Listener
	target   string
	pumps    sync.WaitGroup
	ctx      context.Context // ends the pumps
	end      context.CancelFunc
	// alter changes what a node sends; for planted faults. May be nil.
	alter func([]byte) []byte

	mu    sync.Mutex
	cut   bool
	gate  chan struct{} // closed when bytes flow again; nil if they do
	delay time.Duration
	conns map[net.Conn]struct{}
}

func newProxy(target string, alter func([]byte) []byte) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{listener: l, target: target, alter: alter, conns: map[net.Conn]struct{}{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.pumps.Go(p.accept)
	return p, nil
}

func (p *proxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *proxy) close() {
	p.end()
	_ = p.listener.Close() // nobody comes any more in any case
	p.setCut(true)
	p.pumps.Wait()
}

func (p *proxy) accept() {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = near.Close()
			continue
		}
		if !p.adopt(near, far) {
			continue
		}
		p.pumps.Go(func() { p.pump(far, near, p.alter) })
		p.pumps.Go(func() { p.pump(near, far, nil) })
	}
}

// adopt takes a pair of connections, unless connections are cut.
func (p *proxy) adopt(pair ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range pair {
		if p.cut {
			_ = c.Close()
		} else {
			p.conns[c] = struct{}{}
		}
	}
	return !p.cut
}

// pump passes bytes on until either side ends, and then ends the other.
func (p *proxy) pump(to, from net.Conn, alter func([]byte) []byte) {
	defer p.forget(to, from)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		data := buf[:n]
		if alter != nil {
			data = alter(data)
		}
		if !p.pass() {
			return
		}
		if _, err := to.Write(data); err != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) forget(pair ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range pair {
		_ = c.Close()
		delete(p.conns, c)
	}
}

// pass holds up bytes as long as they are to be. It is false when the proxy ends.
func (p *proxy) pass() bool {
	for {
		p.mu.Lock()
		gate, delay := p.gate, p.delay
		p.mu.Unlock()
		if gate == nil {
			return delay == 0 || pause(p.ctx, delay)
		}
		select {
		case <-gate:
		case <-p.ctx.Done():
			return false
		}
	}
}

// setCut ends all connections and lets none come, or lets them come again.
func (p *proxy) setCut(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = yes
	if yes {
		for c := range p.conns {
			_ = c.Close()
		}
	}
}

// setStalled holds back all bytes, or lets them flow again.
func (p *proxy) setStalled(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case yes && p.gate == nil:
		p.gate = make(chan struct{})
	case !yes && p.gate != nil:
		close(p.gate)
		p.gate = nil
	}
}

// setDelay holds up each piece of a stream for some time.
func (p *proxy) setDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// pause waits; it is false when ctx ended before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
