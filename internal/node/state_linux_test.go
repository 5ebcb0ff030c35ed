package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/xid"
)

// TestNodeThatWasKilledLeavesNothing: the next one on its state directory ends
// what is in the cgroups of its machines, and only of those.
func TestNodeThatWasKilledLeavesNothing(t *testing.T) {
	groups := openGroups(slog.New(slog.DiscardHandler))
	if groups == nil {
		t.Skip("this host gives the tests no cgroups")
	}
	defer groups.Close()
	dir := t.TempDir()
	var ended [2]chan error
	var killed [2]bool
	for i := range ended {
		id := xid.New().String()
		g, err := groups.Make(id)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.MkdirAll(filepath.Join(dir, "machines", id), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
		if err != nil {
			t.Fatal(err)
		}
		ended[i] = make(chan error, 1)
		go func() {
			_, err := p.Wait()
			ended[i] <- err
		}()
		t.Cleanup(func() {
			if killed[i] {
				return
			}
			if err := p.Kill(); err != nil {
				t.Errorf("the process of another node: %v", err)
			}
			<-ended[i]
			if err := groups.Sweep(context.Background(), id); err != nil {
				t.Error(err)
			}
		})
		if err := g.Add(p.Pid); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	if err := s.clear(Config{}, groups); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended[0]:
		killed[0] = true
	case <-time.After(30 * time.Second):
		t.Error("what the machine left is alive")
	}
	select {
	case <-ended[1]:
		killed[1] = true
		t.Error("the process of another node was killed")
	default:
	}
	if left, err := os.ReadDir(filepath.Join(dir, "machines")); err != nil || len(left) > 0 {
		t.Errorf("machine directories: %v, %v", left, err)
	}
}
