// Package node assembles a node and runs it: it decides who may deploy what,
// answers for the node on the control subjects, and tells the world what
// happens. The work itself is done by the packages it wires together: control,
// workload, machine, artifact.
//
// Run starts everything top to bottom and stops it in reverse; when it returns
// no goroutine, process or machine of the node is left.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"nex"
	"nex/internal/artifact"
	"nex/internal/cgroup"
	"nex/internal/config"
	"nex/internal/control"
	"nex/internal/direct"
	"nex/internal/machine"
	"nex/internal/sdnotify"
	"nex/internal/workload"
)

const (
	// heartbeat is the time between heartbeat events.
	heartbeat = 30 * time.Second
	// cacheBytes is how much disk artifacts may take.
	cacheBytes = 4 << 30
	// reconnectWait is the time between attempts to reach NATS.
	reconnectWait = 250 * time.Millisecond
	// reconnectJitter is the most that is added to it by chance, so that not all
	// nodes come back to a server at once.
	reconnectJitter = 500 * time.Millisecond
	// flushWait is how long a server may take to answer.
	flushWait = 2 * time.Second
	// bufferWhileAway is how many bytes of replies, events and logs wait
	// for NATS to come back; what comes beyond is lost.
	bufferWhileAway = 8 << 20
)

// Config says what node to run.
type Config struct {
	Settings config.Config
	Nexus    string // name of the cluster the node belongs to
	Version  string // of this build
	StateDir string // made if it is not there

	Server  string        // NATS URL, or several separated by commas; "" for the public server in Settings
	Options []nats.Option // who to connect as

	Log *slog.Logger
	// SystemLog makes the logger whose lines are published on NATS, each with
	// one Write; it gets all of the node's log but what is about the
	// connection. Nil publishes nothing.
	SystemLog func(stdout, stderr io.Writer) *slog.Logger
	// Now is the clock that claims are held against; nil is the system's.
	Now func() time.Time
	// Notify is the service manager that is told how the node is; may be nil.
	Notify *sdnotify.Notifier
	// Ready is called once when the node first takes requests; may be nil.
	Ready func(nex.NodeInfo)
}

// node is a running node.
type node struct {
	cfg       Config
	identity  identity
	fixedTags map[string]string
	limits    cgroup.Kind
	started   time.Time
	log       *slog.Logger
	reporter  *reporter
	workloads *workload.Manager
	now       func() time.Time
	replays   *replays
	journal   *journal
	lameDuck  atomic.Bool
	drain     draining
	starter   *starter
	unheard   rate.Sometimes // warnings about the service manager
	announced bool           // of Run's goroutine
}

// Run runs a node until ctx ends. It keeps trying while NATS cannot be
// reached. Errors are about what must be changed for a node to run at all.
func Run(ctx context.Context, cfg Config) (err error) {
	groups := openGroups(cfg.Log)
	defer groups.Close()
	state, err := openState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.close()) }()
	if err := state.clear(cfg, groups); err != nil {
		return fmt.Errorf("clear machine directories: %w", err)
	}
	pid, err := writePid(cfg.Settings.PidFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pid.remove()) }()
	stopServer, err := startPublicServer(&cfg, state.server())
	if err != nil {
		return err
	}
	defer stopServer()
	return serve(ctx, cfg, state, groups)
}

// serve runs a node that has its state directory for itself.
func serve(ctx context.Context, cfg Config, state *state, groups *cgroup.Root) (err error) {
	id, err := state.identity()
	if err != nil {
		return err
	}
	local := cfg // its log is not published
	system := newSystemLog(&cfg)
	box, err := newSandbox(ctx, cfg, state, groups)
	if err != nil {
		return err
	}
	defer box.close()
	cfg.Settings.Sandbox = box.kind
	nc, connected, err := connect(local, id.id)
	if err != nil {
		return err
	}
	defer drain(nc, local.Log)
	publishing := system.publish(nc, id.id, connected, local.Log)
	defer publishing.stop()
	cache, err := artifact.NewCache(state.artifacts(), cacheBytes, artifact.ObjectStore{Conn: nc})
	if err != nil {
		return err
	}
	n := &node{
		cfg: cfg, identity: id, started: time.Now(), now: cfg.Now,
		fixedTags: tagsOf(cfg.Settings, id.id, box), limits: box.limits,
		log: cfg.Log, reporter: newReporter(nc, id.id, cfg.Log), unheard: rate.Sometimes{First: 1, Interval: warnEvery},
	}
	if n.now == nil {
		n.now = time.Now
	}
	if n.starter, err = newStarter(n, state); err != nil {
		return err
	}
	if n.replays, err = openReplays(state.replays(), n.now); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.replays.close()) }()
	reporting := runUntilStopped(n.reporter.run)
	defer n.sayStopped()
	defer reporting.stop()

	pool := machine.NewPool(machine.PoolConfig{
		Launcher: box.launcher, Size: cfg.Settings.PoolSize, Max: cfg.Settings.MaxMachines,
		Failed: func(err error, in time.Duration) {
			n.reporter.system(nex.MachineBootFailed{Reason: brief(err), RetryInMS: in.Milliseconds()})
		},
		Hello: box.hello, Ping: cfg.Settings.PingTimeout, Log: cfg.Log,
	})
	filling := runUntilStopped(pool.Run)
	defer filling.stop()
	hosts, err := newHosts(cfg, n.reporter)
	if err != nil {
		return err
	}
	defer hosts.Close()
	var recorded []entry
	if n.journal, recorded, err = openJournal(state.workloads(), id, cfg.Log); err != nil {
		return err
	}
	n.workloads = workload.NewManager(workload.Config{
		Journal: n.journal,
		Guests:  guests{pool}, Artifacts: cache, Conn: nc, Reporter: n.reporter, Log: cfg.Log, NodeID: id.id, Host: hosts.open,
		Limits: workload.Limits{
			Workloads: cfg.Settings.Limits.MaxWorkloads, TotalBytes: cfg.Settings.Limits.MaxTotalBytes,
			WorkloadBytes: cfg.Settings.Limits.MaxWorkloadBytes,
		},
	})
	beating := runUntilStopped(n.beAlive)
	defer beating.stop()
	defer n.workloads.Close(lastCalls, func() {})
	n.restore(recorded)
	api, err := control.Listen(control.Config{Conn: nc, NodeID: id.id, Backend: n, Directory: n, Log: cfg.Log})
	if err != nil {
		return err
	}
	defer api.Close()
	err = n.live(ctx, nc, connected)
	cfg.Log.Info("Node is stopping")
	n.empty()
	return err
}

// live announces the node once NATS knows it, and beats until ctx ends. It is an
// error when the connection ends for good before: a node that hears nobody must
// not look alive.
func (n *node) live(ctx context.Context, nc *nats.Conn, connected <-chan struct{}) error {
	n.log.Info("Use this key as the recipient for encrypted run requests", "public_xkey", n.identity.xkey)
	n.warn(n.cfg.Notify.Status("Waiting for NATS"))
	closed := nc.StatusChanged(nats.CLOSED)
	n.announce(ctx, nc, connected)
	starting := runUntilStopped(n.starter.run)
	defer starting.stop()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-closed:
			return fmt.Errorf("the connection to NATS ended for good: %w", nc.LastError())
		case <-beat.C:
			p := n.Ping()
			n.reporter.system(nex.Heartbeat{
				Version: p.Version, NodeID: p.NodeID, Nexus: p.Nexus, Uptime: p.Uptime, Tags: p.Tags, RunningMachines: p.RunningMachines, Drain: p.Drain,
			})
		}
	}
}

// announce waits for the first connection, for as long as it takes.
func (n *node) announce(ctx context.Context, nc *nats.Conn, connected <-chan struct{}) {
	select {
	case <-connected:
	case <-ctx.Done():
		return
	}
	for { // until the server knows our subscriptions
		flush, cancel := context.WithTimeout(ctx, flushWait)
		err := nc.FlushWithContext(flush)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil || nc.IsClosed() {
			return
		}
	}
	n.log.Info("NATS execution engine awaiting commands", "id", n.identity.id, "version", n.cfg.Version)
	n.announced = true
	n.warn(n.cfg.Notify.Ready("Ready as " + n.fixedTags[nex.TagName]))
	n.reporter.system(nex.NodeStarted{Version: n.cfg.Version, ID: n.identity.id, Tags: n.tags()})
	if n.cfg.Ready != nil {
		n.cfg.Ready(n.Ping())
	}
}

// sayStopped is the node's last word, if it had a first one.
func (n *node) sayStopped() {
	if n.announced {
		n.reporter.system(nex.NodeStopped{ID: n.identity.id, Graceful: true})
	}
}

// guests lets workloads take machines from a pool.
type guests struct{ pool *machine.Pool }

func (g guests) Take(ctx context.Context) (workload.Guest, error) {
	m, err := g.pool.Take(ctx)
	if err != nil {
		return nil, err // not m: a nil *machine.Guest is no nil Guest
	}
	return m, nil
}

// connect returns at once, connected or not, and never gives up. The channel
// is closed when the connection is there for the first time.
func connect(cfg Config, id string) (*nats.Conn, <-chan struct{}, error) {
	connected := make(chan struct{})
	tries := rate.Sometimes{First: 1, Interval: warnEvery}
	options := append([]nats.Option{
		nats.Name("nex node " + id), nats.SetCustomDialer(direct.Dialer{Timeout: nats.DefaultTimeout}),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.IgnoreAuthErrorAbort(), // credentials may be set right while we try
		nats.ReconnectBufSize(bufferWhileAway),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				cfg.Log.Warn("NATS connection lost, trying again", "error", err)
			}
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			tries.Do(func() { cfg.Log.Warn("NATS not reachable, trying again", "error", err) })
		}),
		nats.ConnectHandler(func(nc *nats.Conn) {
			cfg.Log.Info("Established node NATS connection", "server", nc.ConnectedUrlRedacted())
			close(connected)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			cfg.Log.Info("Established node NATS connection again", "server", nc.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			if s != nil {
				cfg.Log.Error("NATS error", "subject", s.Subject, "error", err)
			} else {
				cfg.Log.Error("NATS error", "error", err)
			}
		}),
	}, cfg.Options...)
	nc, err := nats.Connect(cfg.Server, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to NATS at %s: %w", RedactURLs(cfg.Server), err)
	}
	if !nc.IsConnected() {
		cfg.Log.Warn("NATS is not reachable, trying until it is", "server", RedactURLs(cfg.Server))
	}
	return nc, connected, nil
}

// RedactURLs hides the passwords and tokens in NATS URLs separated by commas.
func RedactURLs(servers string) string {
	list := strings.Split(servers, ",")
	for i, s := range list {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err != nil:
			list[i] = "(not a URL)"
		case u.User != nil:
			if _, password := u.User.Password(); !password { // the user is a token
				u.User = url.User("xxxxx")
			}
			list[i] = u.Redacted()
		}
	}
	return strings.Join(list, ",")
}

// drain sends what is buffered and closes the connection.
func drain(nc *nats.Conn, log *slog.Logger) {
	defer nc.Close()
	if !nc.IsConnected() {
		return
	}
	if err := nc.FlushTimeout(flushWait); err != nil {
		log.Warn("Last messages may be lost", "error", err)
	}
}

// tagsOf are the configured tags and those every node has.
func tagsOf(s config.Config, id string, box *sandbox) map[string]string {
	t := maps.Clone(s.Tags)
	if t[nex.TagName] == "" {
		t[nex.TagName] = defaultName(id)
	}
	t[nex.TagOS], t[nex.TagArch], t[nex.TagCPUs] = runtime.GOOS, runtime.GOARCH, strconv.Itoa(runtime.NumCPU())
	t[nex.TagSandbox], t[nex.TagLimits] = string(box.kind), string(box.limits)
	if box.kind == nex.SandboxNone {
		t[nex.TagUnsafe] = "true"
	}
	for tag, value := range map[string]string{nex.TagVMM: box.vmm, nex.TagSandboxMissing: strings.Join(box.missing, "; ")} {
		if delete(t, tag); value != "" {
			t[tag] = value
		}
	}
	return t
}

// defaultName is the host's name and a little of the node's id.
func defaultName(id string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return host + "-" + id[len(id)-4:]
}

// task is a function running until it is told to stop.
type task struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func runUntilStopped(run func(context.Context)) *task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{cancel: cancel}
	t.wg.Go(func() { run(ctx) })
	return t
}

// stop returns when the function has.
func (t *task) stop() { t.cancel(); t.wg.Wait() }
