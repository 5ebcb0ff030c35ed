//go:build linux

package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"nex"
	"nex/internal/machine"
	"nex/internal/nextest"
)

// diskSize is the size of a node's disk.
const diskSize = "size=96m"

// world is the server, the nodes and what is between them.
type world struct {
	dir    string // of everything in this run
	logs   string // of what the processes log
	plant  Plant
	addr   string // of the server
	server *process
	nodes  []*host
	nc     *nats.Conn // of the driver, to the server itself
	client *nex.Client
	// machines are the ids of those that were seen; of the goroutine that watches.
	machines map[string]bool

	mu sync.Mutex // held by whoever ends or starts the server
}

// host is a node with its directory and its connection.
type host struct {
	w     *world
	index int
	dir   string
	proxy *proxy
	id    string
	xkey  string
	full  bool // its directory is a disk of its own

	mu   sync.Mutex // held by whoever ends or starts the node's process
	proc *process
}

// temp is for temporary files of the nodes, of which none may be left.
func (w *world) temp() string { return filepath.Join(w.dir, "temp") }

// newWorld starts everything; what there is of it must be closed also when that
// failed.
func newWorld(o Options) (*world, error) {
	w := &world{logs: o.LogDir, plant: o.Plant, machines: map[string]bool{}}
	var err error
	if w.dir, err = os.MkdirTemp("", "nex-chaos-"); err != nil {
		return w, err
	}
	if err := os.Mkdir(w.temp(), 0o700); err != nil {
		return w, err
	}
	self, err := os.Executable()
	if err != nil {
		return w, err
	}
	for _, name := range []string{nodeName, serverName, serviceName, leakedName, machine.AgentName()} {
		if err := os.Symlink(self, filepath.Join(w.dir, name)); err != nil {
			return w, err
		}
	}
	if w.addr, err = freeAddress(); err != nil {
		return w, err
	}
	if err := w.startServer(); err != nil {
		return w, fmt.Errorf("start NATS: %w", err)
	}
	w.nc, err = nats.Connect(w.addr, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})) // a server that is killed is no news
	if err != nil {
		return w, err
	}
	if w.client, err = nex.NewClient(w.nc, ""); err != nil {
		return w, err
	}
	for i := range o.Nodes {
		if err := w.addNode(i); err != nil {
			return w, fmt.Errorf("start node %d: %w", i, err)
		}
	}
	return w, nil
}

// agent is the path of all nodes' agents.
func (w *world) agent() string { return filepath.Join(w.dir, machine.AgentName()) }

// freeAddress is one that a server can be started on again and again.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func (w *world) addNode(i int) error {
	h := &host{w: w, index: i, dir: filepath.Join(w.dir, fmt.Sprintf("node%d", i))}
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		if err := unix.Mount("nex-chaos", h.dir, "tmpfs", 0, diskSize); err != nil {
			return fmt.Errorf("mount its disk: %w", err)
		}
		h.full = true
	}
	var err error
	if h.proxy, err = newProxy(w.addr, w.plant.alter()); err != nil {
		return err
	}
	w.nodes = append(w.nodes, h)
	if err := h.start(); err != nil {
		return err
	}
	said, err := h.proc.hears("ready", nextest.Patience)
	if err != nil || len(said) != 2 {
		return fmt.Errorf("it says %q: %w", said, err)
	}
	h.id, h.xkey = said[0], said[1]
	return nil
}

// launch starts one of our programs; its log is appended to.
func (w *world) launch(program, log string, t told) (*process, error) {
	data, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(w.logs, log+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the child has its own
	return launch(filepath.Join(w.dir, program), []string{settingsVariable + "=" + string(data), "TMPDIR=" + w.temp()}, f)
}

// startServer starts NATS on its directory and returns when it is ready.
func (w *world) startServer() (err error) {
	_, port, err := net.SplitHostPort(w.addr)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	if w.server, err = w.launch(serverName, "nats", told{Port: number, Dir: filepath.Join(w.dir, "nats")}); err != nil {
		return err
	}
	_, err = w.server.hears("ready", nextest.Patience)
	return err
}

// start starts the node's process. It does not wait: the node may have to try
// until its server is there.
func (h *host) start() (err error) {
	h.proc, err = h.w.launch(nodeName, fmt.Sprintf("node%d", h.index), told{URL: h.proxy.url(), Dir: h.dir, Agent: h.w.agent()})
	return err
}

// machines is where the node's machines are.
func (h *host) machines() string { return filepath.Join(h.dir, "machines") }

// agents lists the node's agents.
func (h *host) agents() (pids []int) {
	for _, p := range processesOf(h.machines()) {
		if filepath.Base(p.args[0]) == machine.AgentName() {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// fillFile takes all space on a node's disk.
const fillFile = "full-disk"

// fill takes all space on the node's disk, or gives it back.
func (h *host) fill(yes bool) error {
	path := filepath.Join(h.dir, fillFile)
	if !yes {
		return os.Remove(path)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() // what was written last does not matter
	block := make([]byte, 64<<10)
	for {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
