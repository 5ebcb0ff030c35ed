package workload

import "fmt"

// state is where a workload is in its life:
//
//	            ┌── lost or failed, and the policy says again ──┐
//	            ▼                                               │
//	pending ─▶ staging ─▶ starting ─────────────────────▶ running
//	           fetch      take guest, load, subscribe     answers triggers
//
//	every state but the last two ── stop ──▶ stopping ──▶ stopped
//	every state but the last three ── error ──▶ failed
type state int

const (
	pending state = iota
	staging
	starting
	running
	stopping
	stopped
	failed
)

func (s state) String() string {
	return [...]string{"pending", "staging", "starting", "running", "stopping", "stopped", "failed"}[s]
}

// moves lists where each state may lead.
var moves = map[state][]state{
	pending:  {staging, stopping, failed},
	staging:  {starting, pending, stopping, failed},
	starting: {running, pending, stopping, failed},
	running:  {pending, stopping, stopped, failed},
	stopping: {stopped},
}

// to returns next if s may lead there.
func (s state) to(next state) (state, error) {
	for _, m := range moves[s] {
		if m == next {
			return next, nil
		}
	}
	return s, fmt.Errorf("a workload cannot go from %s to %s", s, next)
}
