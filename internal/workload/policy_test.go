package workload

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"nex"
	"nex/internal/guest"
)

func TestRestartPolicy(t *testing.T) {
	failed, done, unready := end{exit: &guest.Exit{Code: 1}}, end{exit: &guest.Exit{}}, end{err: errors.New("not ready"), unready: true}
	lost := func(f guest.Fault) end { return end{fault: f} }
	const ms = time.Millisecond
	never, onFailure, always := nex.Restart{Policy: nex.RestartNever}, nex.Restart{Policy: nex.RestartOnFailure}, nex.Restart{Policy: nex.RestartAlways}
	budget := nex.Restart{Policy: nex.RestartAlways, MaxAttempts: 3}
	for name, tc := range map[string]struct {
		policy nex.Restart
		end    end
		tries  int
		delay  time.Duration
		again  bool
	}{
		"never, failed":                    {never, failed, 0, 0, false},
		"never, not ready":                 {never, unready, 0, 0, false},
		"never, machine lost":              {never, lost(guest.FaultUnknown), 0, 0, true},
		"on failure, done":                 {onFailure, done, 0, 0, false},
		"on failure, failed":               {onFailure, failed, 0, 100 * ms, true},
		"on failure, failed again":         {onFailure, failed, 3, 800 * ms, true},
		"on failure, the hundredth time":   {onFailure, failed, 99, 10_000 * ms, true},
		"on failure, signal":               {onFailure, end{exit: &guest.Exit{Code: -1}}, 0, 100 * ms, true},
		"on failure, not ready":            {onFailure, unready, 1, 200 * ms, true},
		"always, done":                     {always, done, 0, 100 * ms, true},
		"always, failed":                   {always, failed, 2, 400 * ms, true},
		"budget not used up":               {budget, failed, 2, 400 * ms, true},
		"budget used up":                   {budget, failed, 3, 0, false},
		"budget used up, done":             {budget, done, 3, 0, false},
		"budget is not for lost machines":  {budget, lost(guest.FaultUnknown), 3, 400 * ms, true},
		"start again failed":               {never, end{err: errors.New("no machine")}, 0, 100 * ms, true},
		"start again failed again":         {never, end{err: errors.New("no machine")}, 2, 200 * ms, true},
		"lost, first":                      {never, lost(guest.FaultUnknown), 0, 0, true},
		"lost, second":                     {never, lost(guest.FaultUnknown), 1, 100 * ms, true},
		"lost, fifty-first":                {never, lost(guest.FaultUnknown), 50, 10_000 * ms, true},
		"lost through others, fifty-first": {never, lost(guest.FaultOthers), 50, 0, true},
		"lost through itself":              {never, lost(guest.FaultOwn), 0, 100 * ms, true},
		"lost through one of a crowd":      {never, lost(guest.FaultCrowd), 1, 200 * ms, true},
	} {
		for _, jitter := range []float64{0, 0.5, 1} {
			r := restarts{policy: tc.policy, service: true, tries: tc.tries, spent: tc.tries, random: func() float64 { return jitter }}
			r.policy.ResetMS = 1000
			want := tc.delay - time.Duration(jitter*float64(tc.delay)/2)
			delay, again := r.next(tc.end, 0)
			if delay != want || again != tc.again {
				t.Errorf("%s, jitter %g: %s, %v; want %s, %v", name, jitter, delay, again, want, tc.again)
			}
		}
	}
}

// TestRestartsOverTime plays a service that fails after some time, again and
// again, on a clock of its own.
func TestRestartsOverTime(t *testing.T) {
	for name, tc := range map[string]struct {
		policy nex.Restart
		runs   []time.Duration // how long each run is healthy
		starts []time.Duration // when each begins
	}{
		"fails at once": {nex.Restart{Policy: nex.RestartOnFailure, ResetMS: 10_000}, make([]time.Duration, 10),
			[]time.Duration{0, 100, 300, 700, 1500, 3100, 6300, 12700, 22700, 32700, 42700}},
		"has a budget": {nex.Restart{Policy: nex.RestartAlways, ResetMS: 10_000, MaxAttempts: 3}, make([]time.Duration, 10),
			[]time.Duration{0, 100, 300, 700}},
		"a healthy time makes up for failures": {nex.Restart{Policy: nex.RestartOnFailure, ResetMS: 1000, MaxAttempts: 2},
			[]time.Duration{0, 0, 1001, 0, 0},
			[]time.Duration{0, 100, 300, 1401, 1601}},
		"a short one does not": {nex.Restart{Policy: nex.RestartOnFailure, ResetMS: 1000, MaxAttempts: 2},
			[]time.Duration{0, 0, 1000, 0, 0},
			[]time.Duration{0, 100, 300}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := restarts{policy: tc.policy, service: true, random: func() float64 { return 0 }}
				begin := time.Now()
				starts := []time.Duration{0}
				for _, healthy := range tc.runs {
					sleep(t.Context(), healthy*time.Millisecond)
					delay, again := r.next(end{exit: &guest.Exit{Code: 1}}, healthy*time.Millisecond)
					if !again {
						break
					}
					sleep(t.Context(), delay)
					starts = append(starts, time.Since(begin).Round(time.Millisecond)/time.Millisecond)
				}
				if !slices.Equal(starts, tc.starts) {
					t.Errorf("starts at %d ms, want %d", starts, tc.starts)
				}
			})
		})
	}
}

// TestBudgetIsForRestarts of the service: what it cannot help does not use it up.
func TestBudgetIsForRestarts(t *testing.T) {
	failed := end{exit: &guest.Exit{Code: 1}}
	r := newRestarts(restarting(nex.RestartOnFailure, 2), func() float64 { return 0 })
	for _, e := range []end{{err: errors.New("no machine")}, {err: errors.New("no machine")}, {fault: guest.FaultUnknown}, {fault: guest.FaultOthers}} {
		if _, again := r.next(e, 0); !again {
			t.Fatalf("given up after %+v", e)
		}
	}
	for n := range 2 {
		if _, again := r.next(failed, 0); !again {
			t.Errorf("given up before restart %d", n+1)
		}
	}
	if _, again := r.next(failed, 0); again || !r.gaveUp {
		t.Errorf("again %t, given up %t after as many restarts as there may be", again, r.gaveUp)
	}
	done := newRestarts(restarting(nex.RestartOnFailure, 1), func() float64 { return 0 })
	done.next(failed, 0)
	if _, again := done.next(end{exit: &guest.Exit{}}, 0); again || done.gaveUp {
		t.Errorf("again %t, given up %t after it was done", again, done.gaveUp)
	}
}

func restarting(p nex.RestartPolicy, most int) Spec {
	return Spec{Type: nex.Native, Settings: nex.Settings{Restart: nex.Restart{Policy: p, MaxAttempts: most, ResetMS: 1000}}}
}

// Functions are started again for ever, and forget losses too.
func TestFunctionsAreStartedAgain(t *testing.T) {
	r := newRestarts(Spec{Type: nex.V8}, func() float64 { return 0 })
	for range 3 {
		r.next(end{fault: guest.FaultOwn}, 0)
	}
	if d, again := r.next(end{fault: guest.FaultOwn}, time.Second); d != 800*time.Millisecond || !again {
		t.Errorf("after a short time: %s, %v", d, again)
	}
	if d, again := r.next(end{fault: guest.FaultOwn}, 11*time.Second); d != 100*time.Millisecond || !again {
		t.Errorf("after a long time: %s, %v", d, again)
	}
}

func TestStatesLeadNowhereElse(t *testing.T) {
	allowed := map[[2]state]bool{}
	for from, list := range moves {
		for _, to := range list {
			allowed[[2]state{from, to}] = true
		}
	}
	for from := pending; from <= failed; from++ {
		for to := pending; to <= failed; to++ {
			got, err := from.to(to)
			if ok := allowed[[2]state{from, to}]; ok != (err == nil) || ok && got != to || !ok && got != from {
				t.Errorf("%s to %s: %s, %v", from, to, got, err)
			}
		}
	}
	if len(moves[stopped])+len(moves[failed]) > 0 {
		t.Error("an end is not the end")
	}
}
