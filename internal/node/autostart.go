package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
)

const (
	// firstRetry is the delay before a workload that did not start with the node
	// is tried again; it doubles with every failure up to lastRetry.
	firstRetry, lastRetry = time.Second, time.Minute
	// inOrder is how long the next workload waits for the one before it to
	// have been tried.
	inOrder = 10 * time.Second
)

// starter starts the workloads of the node's configuration. What it asks the
// node goes through admission like the request of anybody, but for the list of
// issuers: the configuration is the operator's word.
type starter struct {
	n         *node
	keys      nex.Keys
	issuer    string        // public key that signs
	enough    chan struct{} // closed when no more is to be started
	onceStop  sync.Once
	workloads []config.Autostart

	mu      sync.Mutex
	waiting []nex.WaitingWorkload // like workloads; without a name if it has started
}

// newStarter makes a starter; without workloads it has no key and does nothing.
func newStarter(n *node, state *state) (*starter, error) {
	s := &starter{n: n, enough: make(chan struct{}), workloads: n.cfg.Settings.Autostart}
	if len(s.workloads) == 0 {
		return s, nil
	}
	for _, w := range s.workloads {
		s.waiting = append(s.waiting, nex.WaitingWorkload{Namespace: w.Namespace, Name: w.Name, Type: w.Type})
	}
	var err error
	if s.keys.Issuer, err = state.issuer(); err != nil {
		return nil, err
	}
	if s.issuer, err = s.keys.Issuer.PublicKey(); err != nil {
		return nil, fmt.Errorf("read the node's issuer: %w", err)
	}
	s.keys.Sender, err = nkeys.CreateCurveKeys()
	return s, err
}

// run starts the workloads in their order and tries those again that do not
// start, until all have, ctx ends or there is enough.
func (s *starter) run(ctx context.Context) {
	if len(s.workloads) == 0 {
		return
	}
	s.n.log.Info("Workloads of the configuration are signed by the node", "issuer", s.issuer)
	var all sync.WaitGroup
	defer all.Wait()
	for i := range s.workloads {
		tried := make(chan struct{})
		all.Go(func() { s.insist(ctx, i, sync.OnceFunc(func() { close(tried) })) })
		patience := time.NewTimer(inOrder)
		select {
		case <-tried:
		case <-patience.C:
		case <-ctx.Done():
		}
		patience.Stop()
	}
}

// stop ends the retries.
func (s *starter) stop() { s.onceStop.Do(func() { close(s.enough) }) }

// insist tries until a workload runs. tried is called after each attempt.
func (s *starter) insist(ctx context.Context, i int, tried func()) {
	defer tried()
	for attempt := 1; ; attempt++ {
		err := s.start(ctx, s.workloads[i])
		delay := min(firstRetry<<min(attempt-1, 16), lastRetry)
		if ctx.Err() != nil || !s.note(i, attempt, delay, err) {
			return
		}
		tried()
		retry := time.NewTimer(delay)
		select {
		case <-retry.C:
		case <-s.enough:
		case <-ctx.Done():
		}
		retry.Stop()
		if ctx.Err() != nil || s.over() {
			return
		}
	}
}

func (s *starter) over() bool {
	select {
	case <-s.enough:
		return true
	default:
		return false
	}
}

// start asks the node for a workload, with a request that is good once.
func (s *starter) start(ctx context.Context, w config.Autostart) error {
	id := s.n.identity
	r, err := s.keys.Deploy(w.Workload, nex.Target{Namespace: w.Namespace, Node: id.id, Xkey: id.xkey})
	if err != nil {
		return err
	}
	c := s.n.candidate(w.Namespace, r)
	c.own = true
	_, err = s.n.deploy(ctx, c)
	return err
}

// note remembers and reports how an attempt ended, and says whether there is to
// be another.
func (s *starter) note(i, attempt int, delay time.Duration, err error) (again bool) {
	w := &s.workloads[i]
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.waiting[i] = nex.WaitingWorkload{}
		return false
	}
	again = !s.over() && nex.CodeOf(err) != nex.LameDuck
	s.waiting[i].Attempts, s.waiting[i].Reason = attempt, brief(err)
	failed := nex.AutostartFailed{Name: w.Name, Attempt: attempt, Reason: brief(err), Code: nex.CodeOf(err)}
	if again {
		failed.RetryMS = delay.Milliseconds()
	}
	s.n.reporter.autostartFailed(w.Namespace, failed)
	return again
}

// left are the workloads of a namespace that have not started yet.
func (s *starter) left(namespace string) (left []nex.WaitingWorkload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.waiting {
		if w.Name != "" && w.Namespace == namespace {
			left = append(left, w)
		}
	}
	return left
}
