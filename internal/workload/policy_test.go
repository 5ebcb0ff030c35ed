package workload

import (
	"testing"
	"time"

	"nex/internal/guest"
)

func TestRestartPolicy(t *testing.T) {
	failed, done := guest.Exit{Code: 1}, guest.Exit{Code: 0}
	for name, tc := range map[string]struct {
		policy restart
		exit   guest.Exit
		tries  int
		delay  time.Duration
		again  bool
	}{
		"ordinary service fails":       {restart{service: true}, failed, 0, 0, false},
		"essential service is done":    {restart{service: true, essential: true}, done, 0, 0, false},
		"essential service fails":      {restart{service: true, essential: true}, failed, 0, 100 * time.Millisecond, true},
		"and again":                    {restart{service: true, essential: true}, failed, 3, 800 * time.Millisecond, true},
		"and for the hundredth time":   {restart{service: true, essential: true}, failed, 99, 10 * time.Second, true},
		"signal":                       {restart{service: true, essential: true}, guest.Exit{Code: -1}, 0, 100 * time.Millisecond, true},
		"functions do not exit at all": {restart{essential: true}, failed, 0, 0, false},
	} {
		if delay, again := tc.policy.afterExit(tc.exit, tc.tries); delay != tc.delay || again != tc.again {
			t.Errorf("%s: %s, %v; want %s, %v", name, delay, again, tc.delay, tc.again)
		}
	}
	for tries, want := range map[int]time.Duration{0: 0, 1: 100 * time.Millisecond, 2: 200 * time.Millisecond, 50: 10 * time.Second} {
		if got := (restart{}).afterLoss(guest.FaultUnknown, tries); got != want {
			t.Errorf("loss %d: %s, want %s", tries, got, want)
		}
		if got := (restart{}).afterLoss(guest.FaultOthers, tries); got != 0 {
			t.Errorf("loss %d through others: %s", tries, got)
		}
		if got := (restart{}).afterLoss(guest.FaultOwn, tries); got < max(want, firstDelay) {
			t.Errorf("loss %d through itself: %s", tries, got)
		}
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
