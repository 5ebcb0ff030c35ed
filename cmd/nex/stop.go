package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/choria-io/fisk"

	"nex"
)

type stopCmd struct {
	*cli
	node, id     string
	name, issuer string
}

func (c *cli) addStop(ctx context.Context, app *fisk.Application) {
	s := &stopCmd{cli: c}
	cmd := app.Command("stop", "Stop a workload").Action(action(ctx, s.run))
	cmd.Arg("node", "ID of the node it runs on").Required().StringVar(&s.node)
	cmd.Arg("workload_id", "ID of the workload").Required().StringVar(&s.id)
	cmd.Flag("name", "Name of the workload (asked from the node if not given)").StringVar(&s.name)
	cmd.Flag("issuer", "File of the seed that deployed it").PlaceHolder("~/.nex/issuer.nk").StringVar(&s.issuer)
}

func (s *stopCmd) run(ctx context.Context) error {
	if err := checkNodeID(s.node); err != nil {
		return err
	}
	if s.issuer == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return fmt.Errorf("find the home directory for keys: %w; say with --issuer", err)
		}
		s.issuer = filepath.Join(home, ".nex", "issuer.nk")
	}
	issuer, err := readKey(s.issuer)
	if err != nil {
		return err
	}
	client, nc, err := s.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	if s.name == "" {
		if s.name, err = s.findName(ctx, client); err != nil {
			return err
		}
	}
	ctx, cancel := s.within(ctx, stopWait)
	defer cancel()
	defer s.notice("Waiting for the workload to end…")()
	reply, err := signAndStop(ctx, client, nex.Keys{Issuer: issuer}, s.name, running{s.id, nex.NodeInfo{NodeID: s.node}})
	if nex.CodeOf(err) == nex.Timeout {
		return fmt.Errorf("⛔ Workload stop request failed: %w; it may still be ending, for as long as its stop_grace_ms: nex node info %s tells", answered(err), s.node)
	}
	if err != nil {
		return fmt.Errorf("⛔ Workload stop request failed: %w", answered(err))
	}
	if s.json {
		return s.printJSON(reply)
	}
	_, err = fmt.Fprintf(s.stdout, "✅ Workload '%s' stopped.\n", escape(reply.Name))
	return err
}

// signAndStop ends a workload. A node of Nex 0.2.7 refuses claims of the second
// in which the workload's were signed; they are signed again in the next.
func signAndStop(ctx context.Context, client *nex.Client, keys nex.Keys, name string, w running) (nex.StopReply, error) {
	for tries := 0; ; tries++ {
		req, err := keys.Stop(name, w.id, nex.Target{Namespace: client.Namespace(), Node: w.node.NodeID})
		if err != nil {
			return nex.StopReply{}, err
		}
		reply, err := client.Stop(ctx, w.node.NodeID, req)
		if err == nil || tries > 0 || !strings.Contains(err.Error(), "stop claims appear to be cloned or captured") {
			return reply, err
		}
		now := time.Now()
		select {
		case <-time.After(now.Truncate(time.Second).Add(time.Second).Sub(now)):
		case <-ctx.Done():
			return reply, err
		}
	}
}

// findName asks the node what its workload is called.
func (s *stopCmd) findName(ctx context.Context, client *nex.Client) (string, error) {
	ctx, cancel := s.within(ctx, 0)
	defer cancel()
	info, err := client.Info(ctx, s.node)
	if err != nil {
		return "", answered(err)
	}
	for _, m := range info.Machines {
		if m.ID == s.id {
			return m.Workload.Name, nil
		}
	}
	return "", refusedError{fmt.Errorf("no such workload: %s is not in namespace %s on this node (nex node info %s shows what is)", s.id, client.Namespace(), s.node)}
}
