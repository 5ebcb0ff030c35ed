package node_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"nex"
	"nex/internal/nextest"
)

// TestNoFileDescriptors: a node that may open no more files refuses what it has
// no place for, harms nobody, and goes on when there is place again.
func TestNoFileDescriptors(t *testing.T) {
	r := newRig(t, settings(t))
	r.end()
	startCommand(t, nodeSpec{URL: r.nc.ConnectedUrl(), Dir: r.dir, Agent: nextest.AgentPath(t)}, exec.Command("/bin/sh", "-c", "ulimit -n 150; exec '"+os.Args[0]+"'"))
	r.mustDeployJS(t, "echo", "fds.echo", echo)
	ids := map[string]string{}
	var refused error
	for i := 0; refused == nil; i++ {
		if i == 150 {
			t.Fatal("150 services run with 150 files")
		}
		name := fmt.Sprintf("s%d", i)
		w := r.upload(t, name, nex.Native, []byte("#!/bin/sh\nexec sleep 1000\n"))
		var reply nex.DeployReply
		if reply, refused = r.deploy(t, w); refused == nil {
			ids[name] = reply.ID
		}
	}
	t.Logf("after %d services: %v", len(ids), refused)
	if code := nex.CodeOf(refused); code != nex.Unavailable {
		t.Errorf("refused as %s: %v", code, refused)
	}
	for range 20 {
		r.awaitAnswers(t, []string{"fds.echo"})
	}
	for name, id := range ids {
		if err := r.stop(t, name, id); err != nil {
			t.Fatal(err)
		}
	}
	w := r.upload(t, "again", nex.Native, []byte("#!/bin/sh\nexec sleep 1000\n"))
	retry(t, "a deploy when there is place again", func(ctx context.Context) error { _, err := r.deploy(t, w); return err })
	if m := r.call(t, "fds.echo", []byte("x")); string(m.Data) != "x" {
		t.Errorf("echo answers %q", m.Data)
	}
}
