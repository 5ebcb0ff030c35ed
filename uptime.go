package nex

import (
	"fmt"
	"strings"
	"time"
)

// FormatUptime writes d as Nex nodes do: the largest unit that is not zero
// first, whole numbers, no spaces, as in 1m7s or 1y2d3h4m5s. A year has 365
// days; parts of a second are dropped.
func FormatUptime(d time.Duration) string {
	s := int64(d / time.Second)
	units := []struct {
		name    string
		seconds int64
	}{{"y", 365 * 86400}, {"d", 86400}, {"h", 3600}, {"m", 60}}
	var b strings.Builder
	for _, u := range units {
		if n := s / u.seconds; n > 0 || b.Len() > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
		}
		s %= u.seconds
	}
	fmt.Fprintf(&b, "%ds", s)
	return b.String()
}

// FormatRuntime writes the execution time of a function as Nex nodes do:
// nanoseconds below 1000 ns, whole milliseconds below 1 s, else like
// [FormatUptime].
func FormatRuntime(d time.Duration) string {
	switch {
	case d < 1000:
		return fmt.Sprintf("%dns", d.Nanoseconds())
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return FormatUptime(d)
}
