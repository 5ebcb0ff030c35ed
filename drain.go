package nex

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// DrainProgress tells how far a node is that ends its workloads. Unknown to
// Nex 0.2.7.
type DrainProgress struct {
	Functions int  `json:"functions"` // that are left; they end first
	Services  int  `json:"services"`  // that are left
	Done      bool `json:"done"`      // nothing runs there any more
}

// Left is how many workloads still run.
func (p DrainProgress) Left() int { return p.Functions + p.Services }

// String says it in words, as in "3 workloads left: 2 functions, 1 service".
func (p DrainProgress) String() string {
	if p.Left() == 0 {
		return "no workloads left"
	}
	return fmt.Sprintf("%s left: %s, %s", count(p.Left(), "workload"), count(p.Functions, "function"), count(p.Services, "service"))
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

const (
	// drainPoll is the time between questions to a node that drains.
	drainPoll = 200 * time.Millisecond
	// drainMisses is how many of them in a row may meet nobody: the node may
	// be connecting again.
	drainMisses = 25
)

// Drain yields how far a node has got with a drain that [Client.LameDuck]
// began: first how far it is, then every change, last one that is Done. It
// is an error when the node is gone or does not drain, and when ctx ends; the
// node goes on then.
func (c *Client) Drain(ctx context.Context, node string) iter.Seq2[DrainProgress, error] {
	return func(yield func(DrainProgress, error) bool) {
		poll := time.NewTicker(drainPoll)
		defer poll.Stop()
		var last DrainProgress
		for first := true; ; {
			now, err := c.drainOnce(ctx, node, poll.C)
			if err != nil {
				yield(last, err)
				return
			}
			if (first || now != last) && !yield(now, nil) || now.Done {
				return
			}
			first, last = false, now
			select {
			case <-poll.C:
			case <-ctx.Done():
				yield(last, fmt.Errorf("wait for node %s to be empty: %w", node, ctx.Err()))
				return
			}
		}
	}
}

// drainOnce asks a node until it answers.
func (c *Client) drainOnce(ctx context.Context, node string, again <-chan time.Time) (DrainProgress, error) {
	for misses := 1; ; misses++ {
		info, err := c.Ping(ctx, node)
		switch {
		case ctx.Err() != nil:
			return DrainProgress{}, fmt.Errorf("wait for node %s to be empty: %w", node, ctx.Err())
		case err == nil && info.Drain == nil:
			return DrainProgress{}, errors.New("the node does not drain: it was started again, or is of a version that cannot")
		case err == nil:
			return *info.Drain, nil
		case misses == drainMisses || CodeOf(err) != NoSuchNode && CodeOf(err) != Timeout:
			return DrainProgress{}, err
		}
		select {
		case <-again:
		case <-ctx.Done():
		}
	}
}
