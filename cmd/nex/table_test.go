package main

import (
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/table"

	"nex"
)

// TestNodesCannotCommandTheTerminal: what is shown of a node is text.
func TestNodesCannotCommandTheTerminal(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;title\a\r"
	shown := newTable(evil)
	shown.AppendRow(table.Row{evil, nex.Sandbox(evil), 5, "two\nlines"})
	var info strings.Builder
	printInfo(&info, "N1", nex.InfoReply{
		Version: evil, Uptime: evil, PublicXkey: evil, Tags: map[string]string{evil: evil},
		Machines: []nex.MachineSummary{{ID: evil, Workload: nex.WorkloadSummary{Name: evil, Runtime: evil, Description: evil}}},
	})
	for _, text := range []string{shown.Render(), info.String()} {
		if strings.ContainsAny(text, "\x1b\a\r") || !strings.Contains(text, `\x1b[2J`) {
			t.Errorf("%q", text)
		}
	}
	if lines := strings.Split(shown.Render(), "\n"); len(lines) < 5 {
		t.Errorf("a cell of two lines has become %q", lines)
	}
}
