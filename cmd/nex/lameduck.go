package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/choria-io/fisk"

	"nex"
)

// lameDuckCmd tells a node to take no new work, and perhaps to end what it has.
type lameDuckCmd struct {
	*cli
	node, issuer string

	wait        bool
	deadline    time.Duration
	deadlineSet bool
}

func (c *cli) addLameDuck(ctx context.Context, app *fisk.Application) {
	l := &lameDuckCmd{cli: c}
	cmd := app.Command("lameduck", "Tell a node to take no new workloads; with --wait, to end those it runs").Action(action(ctx, l.run))
	cmd.Arg("id", "ID of the node").Required().StringVar(&l.node)
	cmd.Flag("issuer", "File of an administrator's seed, for nodes with admin_issuers").PlaceHolder("FILE").StringVar(&l.issuer)
	cmd.Flag("wait", "Have the node end its workloads too, and wait until it is empty").UnNegatableBoolVar(&l.wait)
	cmd.Flag("deadline", "How long to wait; the node goes on after that").Default("60s").IsSetByUser(&l.deadlineSet).DurationVar(&l.deadline)
}

func (l *lameDuckCmd) run(ctx context.Context) error {
	switch {
	case l.deadlineSet && !l.wait:
		return errors.New("--deadline needs --wait")
	case l.deadline <= 0:
		return errors.New("--deadline must be above 0")
	}
	if err := checkNodeID(l.node); err != nil {
		return err
	}
	req, err := l.request()
	if err != nil {
		return err
	}
	client, nc, err := l.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	reply, err := l.ask(ctx, client, req)
	if err != nil {
		return fmt.Errorf("issue lame duck command: %w", answered(err))
	}
	switch {
	case !l.wait && l.json:
		return l.printJSON(reply)
	case !l.json:
		fmt.Fprintf(l.stdout, "Command to enter lame duck mode issued to %s\n", l.node)
	}
	if !l.wait {
		return nil
	}
	if reply.Drain == nil {
		return refusedError{fmt.Errorf("node %s is in lame duck mode now, but its version cannot end its workloads on command: stop them with nex stop, or end the node", l.node)}
	}
	return l.await(ctx, client)
}

// request is what the node is asked, signed if there is a key.
func (l *lameDuckCmd) request() (nex.LameDuckRequest, error) {
	if l.issuer == "" {
		return nex.LameDuckRequest{Drain: l.wait}, nil
	}
	issuer, err := readKey(l.issuer)
	if err != nil {
		return nex.LameDuckRequest{}, err
	}
	keys, target := nex.Keys{Issuer: issuer}, nex.Target{Node: l.node}
	if l.wait {
		return keys.Drain(target)
	}
	return keys.LameDuck(target)
}

func (l *lameDuckCmd) ask(ctx context.Context, client *nex.Client, req nex.LameDuckRequest) (nex.LameDuckReply, error) {
	ctx, cancel := l.within(ctx, 0)
	defer cancel()
	return client.LameDuck(ctx, l.node, req)
}

// drainLine is a line of progress for programs.
type drainLine struct {
	NodeID string `json:"node_id"`
	nex.DrainProgress
}

// await shows how far the node is until it is empty.
func (l *lameDuckCmd) await(ctx context.Context, client *nex.Client) error {
	waiting, cancel := context.WithTimeout(ctx, l.deadline)
	defer cancel()
	var last nex.DrainProgress
	for p, err := range client.Drain(waiting, l.node) {
		switch {
		case err != nil && ctx.Err() != nil:
			fmt.Fprintf(l.stderr, "Node %s goes on ending its workloads (%s)\n", l.node, last)
			return err
		case errors.Is(err, context.DeadlineExceeded):
			return nex.Errorf(nex.Timeout, "node %s is not empty after %s: %s; it goes on, and the same command waits again", l.node, l.deadline, last)
		case err != nil:
			return answered(fmt.Errorf("wait for node %s to be empty: %w", l.node, err))
		}
		last = p
		if err := l.show(p); err != nil {
			return err
		}
	}
	return nil
}

func (l *lameDuckCmd) show(p nex.DrainProgress) error {
	var err error
	switch {
	case l.json:
		err = json.NewEncoder(l.stdout).Encode(drainLine{l.node, p})
	case p.Done:
		_, err = fmt.Fprintf(l.stdout, "Node %s is empty\n", l.node)
	case p.Left() > 0:
		_, err = fmt.Fprintln(l.stdout, p)
	}
	return err
}
