//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
)

// report is what was measured.
type report struct {
	Rows []row                     `json:"rows"`
	Cold map[string]float64        `json:"cold_ms"`               // deploy sent to first reply
	Idle map[string]map[string]int `json:"idle_kib_per_function"` // by target, by number of functions
	RSS  map[string]int            `json:"rss_kib"`
	Host map[string]hostCall       `json:"host_calls"`
}

// row is one target under one load.
type row struct {
	Target   string  `json:"target"`
	Size     int     `json:"size"`
	Inflight int     `json:"inflight"`
	P50      float64 `json:"p50_us"`
	P99      float64 `json:"p99_us"`
	RPS      float64 `json:"rps"`
	P50Ratio float64 `json:"p50_ratio"` // to the floor
	RPSRatio float64 `json:"rps_ratio"` // to the floor
	CPU      float64 `json:"cpu_us"`    // of the processes that answer, a request
}

// add notes a load. The first target is the floor.
func (r *report) add(targets []target, size, inflight int, got []samples) {
	var floor row
	for i, t := range targets {
		took := got[i].took
		slices.Sort(took)
		m := row{
			Target: t.name, Size: size, Inflight: inflight,
			P50: microseconds(quantile(took, 0.5)), P99: microseconds(quantile(took, 0.99)),
			RPS: float64(len(took)) / got[i].elapsed.Seconds(),
			CPU: microseconds(got[i].busy) / float64(len(took)),
		}
		if t.name == rawTarget {
			floor = m
		}
		m.P50Ratio, m.RPSRatio = m.P50/floor.P50, m.RPS/floor.RPS
		r.Rows = append(r.Rows, m)
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(float64(len(sorted)-1)*q)]
}

// print shows the report to people.
func (r *report) print(w io.Writer) {
	t := table.NewWriter()
	t.SetStyle(table.StyleRounded)
	t.AppendHeader(table.Row{"target", "bytes", "in flight", "p50 µs", "p99 µs", "req/s", "p50 / floor", "req/s / floor", "CPU µs/req"})
	last := [2]int{}
	for _, m := range r.Rows {
		if load := [2]int{m.Size, m.Inflight}; load != last {
			t.AppendSeparator()
			last = load
		}
		t.AppendRow(table.Row{
			m.Target, m.Size, m.Inflight, fmt.Sprintf("%.0f", m.P50), fmt.Sprintf("%.0f", m.P99),
			fmt.Sprintf("%.0f", m.RPS), fmt.Sprintf("%.2f", m.P50Ratio), fmt.Sprintf("%.2f", m.RPSRatio), fmt.Sprintf("%.0f", m.CPU),
		})
	}
	fmt.Fprintln(w, t.Render())
	fmt.Fprintln(w, "\nDeploy sent to first reply, ms:")
	for _, name := range slices.Sorted(maps.Keys(r.Cold)) {
		fmt.Fprintf(w, "  %-14s %.1f\n", name, r.Cold[name])
	}
	fmt.Fprintln(w, "\nCalls of host services one after the other, beside a Go program's, µs:")
	for _, name := range slices.Sorted(maps.Keys(r.Host)) {
		c := r.Host[name]
		fmt.Fprintf(w, "  %-18s Go %.0f, JS %.0f: %.2f\n", name, c.Go, c.JS, c.Ratio)
	}
	fmt.Fprintln(w, "\nMemory, KiB:")
	for _, name := range slices.Sorted(maps.Keys(r.RSS)) {
		fmt.Fprintf(w, "  %-14s %d\n", name, r.RSS[name])
	}
	for _, name := range slices.Sorted(maps.Keys(r.Idle)) {
		fmt.Fprintf(w, "  %s, each of so many idle functions: %v\n", name, r.Idle[name])
	}
}

// write stores the report as JSON, if a file is named.
func (r *report) write(path string) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
