//go:build linux

package chaos

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// endPatience bounds how long a node may take to end.
const endPatience = time.Minute

// end ends nodes, then the server, as an operator does, and reports what is not
// as it should be then, and what is left.
func (w *world) end(report func(format string, args ...any)) {
	var wg sync.WaitGroup
	for _, h := range w.nodes {
		wg.Go(func() {
			if h.proc == nil {
				return
			}
			if err := h.proc.terminate(endPatience); err != nil {
				report("node %d did not end in order: %v", h.index, err)
				h.proc.kill()
			}
		})
	}
	wg.Wait()
	if w.nc != nil {
		w.nc.Close()
	}
	if w.server != nil {
		if err := w.server.terminate(endPatience); err != nil {
			report("the server did not end in order: %v", err)
			w.server.kill()
		}
	}
	for _, h := range w.nodes {
		if h.proxy != nil {
			h.proxy.close()
		}
		w.leftovers(h, report)
	}
	w.remove(report)
}

// leftovers reports what a node that has ended left behind.
func (w *world) leftovers(h *host, report func(format string, args ...any)) {
	machines, _ := os.ReadDir(h.machines()) // none if the node never was
	for _, m := range machines {
		report("node %d left the machine directory %s", h.index, m.Name())
	}
	known := map[string]bool{
		"lock": true, "identity": true, "machines": true, "workloads": true, "artifacts": true, "wasm": true, "nats": true, "replays": true,
	}
	files, _ := os.ReadDir(h.dir) // likewise
	for _, f := range files {
		if !known[f.Name()] {
			report("node %d left %s in its directory", h.index, f.Name())
		}
	}
	_ = filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (d.Type()&fs.ModeSocket != 0 || strings.HasPrefix(d.Name(), ".") || strings.Contains(d.Name(), ".tmp")) {
			report("node %d left the file %s", h.index, path)
		}
		return nil // what cannot be read is not there
	})
}

// remove takes everything of this run away, and reports what should have gone
// by itself.
func (w *world) remove(report func(format string, args ...any)) {
	if w.dir == "" {
		return
	}
	for _, p := range processesOf(w.dir) {
		report("process left behind: %s", p)
		_ = unix.Kill(p.pid, unix.SIGKILL) // it may have ended by now
	}
	files, _ := os.ReadDir(w.temp()) // none if there never was a world
	for _, f := range files {
		report("temporary file left behind: %s", f.Name())
	}
	w.controlGroups(report)
	for _, h := range w.nodes {
		if h.full {
			if err := unix.Unmount(h.dir, unix.MNT_DETACH); err != nil {
				report("the disk of node %d cannot be unmounted: %v", h.index, err)
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), w.dir) {
		report("mounts are left below %s (%v)", w.dir, err)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		report("the directory of this run cannot be removed: %v", err)
	}
}

// noteMachines remembers the machines that nodes have now.
func (w *world) noteMachines() {
	for _, h := range w.nodes {
		machines, _ := os.ReadDir(h.machines()) // none while the node begins
		for _, m := range machines {
			w.machines[m.Name()] = true
		}
	}
}

// controlGroups reports those that are named after a machine of this run.
func (w *world) controlGroups(report func(format string, args ...any)) {
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it has just gone
		}
		for id := range w.machines {
			if strings.Contains(d.Name(), id) {
				report("control group left behind: %s", path)
			}
		}
		return nil
	})
}
