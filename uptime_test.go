package nex_test

import (
	"strconv"
	"testing"
	"time"

	"nex"
)

func TestFormatUptime(t *testing.T) {
	var cases map[string]string
	for _, c := range vector[[]struct {
		Name  string
		Cases map[string]string
	}](t, "control_info_lameduck") {
		if c.Name == "uptime format" {
			cases = c.Cases
		}
	}
	if len(cases) < 5 {
		t.Fatalf("cases: %v", cases)
	}
	for seconds, want := range cases {
		n, err := strconv.Atoi(seconds)
		if err != nil {
			t.Fatal(err)
		}
		if got := nex.FormatUptime(time.Duration(n)*time.Second + 999*time.Millisecond); got != want {
			t.Errorf("%s s: got %s, want %s", seconds, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "0s", time.Millisecond: "0s", time.Minute: "1m0s", time.Hour: "1h0m0s", 24 * time.Hour: "1d0h0m0s", 365 * 24 * time.Hour: "1y0d0h0m0s",
	} {
		if got := nex.FormatUptime(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

func TestFormatRuntime(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0ns", 999: "999ns", 1000: "0ms", 46*time.Millisecond + 999: "46ms", 999 * time.Millisecond: "999ms",
		time.Second: "1s", 67 * time.Second: "1m7s",
	} {
		if got := nex.FormatRuntime(d); got != want {
			t.Errorf("%d ns: got %s, want %s", d, got, want)
		}
	}
}
