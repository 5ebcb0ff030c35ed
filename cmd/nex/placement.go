package main

import (
	"fmt"

	"nex"
)

// placement tells where a copy of a workload runs.
type placement struct {
	nex.DeployReply
	Node string `json:"node"`
}

// printAccepted tells where copies run: as one JSON object if one was asked
// for, else as a list.
func (c *cli) printAccepted(placed []placement, asked int) error {
	switch {
	case c.json && asked == 1:
		return c.printJSON(placed[0])
	case c.json:
		return c.printJSON(placed)
	}
	for _, p := range placed {
		fmt.Fprintf(c.stdout, "🚀 Workload '%s' accepted. You can now refer to this workload with its ID: %s on node %s\n", escape(p.Name), escape(p.ID), escape(p.Node))
	}
	return nil
}
