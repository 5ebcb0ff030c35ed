//go:build !unix

package agent

import "time"

// processorTime is unknown here; nodes end agents that do not stop code.
func processorTime() time.Duration { return 0 }
