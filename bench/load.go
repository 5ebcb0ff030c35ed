//go:build linux

package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// samples are what one target did under one load.
type samples struct {
	took    []time.Duration // of each request
	elapsed time.Duration   // of all of them together
	busy    time.Duration   // processor time of the target's processes
}

// loadAll measures every load on every target: each takes its turn in each
// round, so that what disturbs the machine disturbs all.
func (s *stage) loadAll(ctx context.Context, r *report, o options, targets []target) error {
	nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	for _, size := range o.sizes {
		for _, inflight := range o.inflight {
			got := make([]samples, len(targets))
			for round := range o.rounds + 1 {
				for i, t := range targets {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					before := s.busy(t)
					part, err := load(nc, t, size, inflight, o.turn)
					if err != nil {
						return err
					}
					part.busy = s.busy(t) - before
					if round > 0 { // the first is to warm up
						got[i].took = append(got[i].took, part.took...)
						got[i].elapsed += part.elapsed
						got[i].busy += part.busy
					}
				}
				s.memory(r, fmt.Sprintf("round_%d", round))
			}
			r.add(targets, size, inflight, got)
		}
	}
	return nil
}

// load keeps so many requests in flight for a while.
func load(nc *nats.Conn, t target, size, inflight int, turn time.Duration) (samples, error) {
	payload := make([]byte, size)
	took, errs := make([][]time.Duration, inflight), make([]error, inflight)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range inflight {
		wg.Go(func() {
			for begin := time.Now(); begin.Sub(start) < turn; {
				m, err := nc.Request(t.subject, payload, patience)
				end := time.Now()
				if err == nil && len(m.Data) < size {
					err = fmt.Errorf("%d bytes came back: %.100q", len(m.Data), m.Data)
				}
				if err != nil {
					errs[i] = fmt.Errorf("%s, %d bytes, %d in flight: %w", t.name, size, inflight, err)
					return
				}
				took[i] = append(took[i], end.Sub(begin))
				begin = end
			}
		})
	}
	wg.Wait()
	s := samples{elapsed: time.Since(start), took: slices.Concat(took...)}
	for _, err := range errs {
		if err != nil {
			return s, err
		}
	}
	return s, nil
}
