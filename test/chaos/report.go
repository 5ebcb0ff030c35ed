//go:build linux

package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nex"
)

// counts are what happened in a run.
type counts struct {
	faults                      map[faultKind]int
	calls, unsent, replies      int
	nobody                      map[string]int // calls that nobody was there for, by why that is right
	silent, excused, unprovoked int
	errors                      map[nex.Code]int
	latest                      time.Duration // of replies after their time was over, without a fault
	deploys, stops              int
	deployed, stopped           int
	deployErrors, stopErrors    map[nex.Code]int
	deploysLost, stopsLost      int
	recoveries                  []time.Duration // from a fault's end until all was well
	rest                        time.Duration
	goroutines, files           []string
}

func newCounts() counts {
	return counts{
		faults: map[faultKind]int{}, errors: map[nex.Code]int{}, nobody: map[string]int{}, deployErrors: map[nex.Code]int{}, stopErrors: map[nex.Code]int{},
	}
}

// Report is what a run found.
type Report struct {
	Violations []string
	Summary    string // the counts, in lines
}

func (m *model) report() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, b := m.counts, &strings.Builder{}
	fmt.Fprintf(b, "faults: %s\n", list(c.faults))
	fmt.Fprintf(b, "calls: %d; replies %d, typed errors %s, nobody there %s, services silent %d, excused %d, not sent %d\n",
		c.calls, c.replies, list(c.errors), list(c.nobody), c.silent, c.excused, c.unsent)
	fmt.Fprintf(b, "calls that failed without a fault: %d; latest reply %s after its time\n", c.unprovoked, c.latest.Round(time.Millisecond))
	fmt.Fprintf(b, "deploys: %d; done %d, refused %s, answer lost %d\n", c.deploys, c.deployed, list(c.deployErrors), c.deploysLost)
	fmt.Fprintf(b, "stops: %d; done %d, refused %s, answer lost %d\n", c.stops, c.stopped, list(c.stopErrors), c.stopsLost)
	slices.Sort(c.recoveries)
	if n := len(c.recoveries); n > 0 {
		fmt.Fprintf(b, "from the end of a fault that excuses until all was well: median %s, longest %s\n",
			c.recoveries[n/2].Round(time.Millisecond), c.recoveries[n-1].Round(time.Millisecond))
	}
	fmt.Fprintf(b, "rest until all was well: %s\n", c.rest.Round(time.Millisecond))
	fmt.Fprintf(b, "goroutines of nodes before and after: %s; open files: %s\n", strings.Join(c.goroutines, ", "), strings.Join(c.files, ", "))
	return Report{Violations: slices.Clone(m.violations), Summary: b.String()}
}

// list shows counts by name.
func list[K cmp.Ordered](counts map[K]int) string {
	total, parts := 0, []string{}
	for _, k := range slices.Sorted(maps.Keys(counts)) {
		total += counts[k]
		parts = append(parts, fmt.Sprintf("%v %d", k, counts[k]))
	}
	if total == 0 {
		return "0"
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(parts, ", "))
}
