package main

import (
	"context"
	"fmt"

	"github.com/choria-io/fisk"

	"nex"
)

// lameDuckCmd tells a node to take no new work.
type lameDuckCmd struct {
	*cli
	node, issuer string
}

func (c *cli) addLameDuck(ctx context.Context, app *fisk.Application) {
	l := &lameDuckCmd{cli: c}
	cmd := app.Command("lameduck", "Tell a node to take no new workloads").Action(c.asking(ctx, l.run))
	cmd.Arg("id", "ID of the node").Required().StringVar(&l.node)
	cmd.Flag("issuer", "File of an administrator's seed, for nodes with admin_issuers").PlaceHolder("FILE").StringVar(&l.issuer)
}

func (l *lameDuckCmd) run(ctx context.Context, client *nex.Client) error {
	if err := checkNodeID(l.node); err != nil {
		return err
	}
	var req nex.LameDuckRequest
	if l.issuer != "" {
		issuer, err := readKey(l.issuer)
		if err != nil {
			return err
		}
		if req, err = (nex.Keys{Issuer: issuer}).LameDuck(nex.Target{Node: l.node}); err != nil {
			return err
		}
	}
	reply, err := client.LameDuck(ctx, l.node, req)
	if err != nil {
		return fmt.Errorf("issue lame duck command: %w", answered(err))
	}
	if l.json {
		return l.printJSON(reply)
	}
	_, err = fmt.Fprintf(l.stdout, "Command to enter lame duck mode issued to %s\n", l.node)
	return err
}
