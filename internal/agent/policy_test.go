package agent

import (
	"testing"
	"time"
)

func TestRunaway(t *testing.T) {
	const ms = time.Millisecond
	for name, tc := range map[string]struct {
		since, used time.Duration
		calls       int
		want        bool
	}{
		"it has time":                         {90 * ms, 200 * ms, 1, false},
		"it does not stop":                    {100 * ms, 100 * ms, 1, true},
		"the processor is busy with others":   {time.Minute, 90 * ms, 1, false},
		"calls of this agent had their turns": {200 * ms, 300 * ms, 3, true},
		"they had not yet":                    {200 * ms, 290 * ms, 3, false},
		"very many calls":                     {500 * ms, 800 * ms, 1000, true},
	} {
		if got := runaway(tc.since, tc.used, tc.calls); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
