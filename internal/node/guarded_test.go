package node_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/node"
)

// guarded is a NATS server with the configuration that operators copy from
// the documentation.
type guarded struct {
	*server.Server
	violations chan string // what the server's log says of them
}

// template is the configuration.
const template = "../../docs/nats-permissions.conf"

// newGuarded runs the server; the test's own are only where it listens, where
// it keeps streams, and the passwords.
func newGuarded(t *testing.T, file string) *guarded {
	t.Helper()
	for _, user := range []string{"operator", "developer", "payer", "node", "system"} {
		t.Setenv(strings.ToUpper(user)+"_PASSWORD", `"`+password(user)+`"`)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port, options.StoreDir = "127.0.0.1", server.RANDOM_PORT, t.TempDir()
	g := &guarded{violations: make(chan string, 10_000)}
	log := slog.New(slog.NewTextHandler(writerFunc(func(line []byte) {
		if bytes.Contains(line, []byte("Violation")) {
			g.violations <- string(line)
		}
	}), nil))
	if g.Server, err = node.StartServer(options, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.stop)
	return g
}

func (g *guarded) stop() { g.Shutdown(); g.WaitForShutdown() }

func password(user string) string { return user + "'s $ecret 1" }

// as are the options of a user. Developers have their account to themselves
// and need no inboxes of their own.
func as(user string) []nats.Option {
	options := []nats.Option{nats.UserInfo(user, password(user))}
	if user == "operator" || user == "node" {
		options = append(options, nats.CustomInboxPrefix("_INBOX."+user))
	}
	return options
}

// connect connects as a user; what is refused to it comes on the channel.
func (g *guarded) connect(t *testing.T, user string) (*nats.Conn, <-chan error) {
	t.Helper()
	refused := make(chan error, 100)
	nc, err := nats.Connect(g.ClientURL(), append(as(user), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		refused <- err
	}))...)
	if err != nil {
		t.Fatalf("connect as %s: %v", user, err)
	}
	t.Cleanup(nc.Close)
	return nc, refused
}

// makeBucket is what the operator does once.
func (g *guarded) makeBucket(t *testing.T) {
	t.Helper()
	nc, _ := g.connect(t, "operator")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateObjectStore(t.Context(), jetstream.ObjectStoreConfig{Bucket: "NEXCLIFILES", MaxBytes: 100 << 20}); err != nil {
		t.Fatal(err)
	}
}

// rig returns a node that runs as the node, and its client that is the
// developer.
func (g *guarded) rig(t *testing.T) *rig {
	t.Helper()
	g.makeBucket(t)
	r := g.client(t, "developer", "default")
	r.dir = t.TempDir()
	r.node, r.end = runNode(t, g.ClientURL(), r.dir, settings(t), as("node")...)
	return r
}

// client is a developer with keys of its own.
func (g *guarded) client(t *testing.T, user, namespace string) *rig {
	t.Helper()
	nc, _ := g.connect(t, user)
	client, err := nex.NewClient(nc, namespace)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Client: client, nc: nc}
	r.keys.Issuer, _ = nkeys.CreateAccount()
	r.keys.Sender, _ = nkeys.CreateCurveKeys()
	return r
}

// put uploads as nex devrun does.
func (r *rig) put(t *testing.T, name string, typ nex.WorkloadType, content string) nex.Workload {
	t.Helper()
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := js.ObjectStore(t.Context(), "NEXCLIFILES")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.PutString(t.Context(), name, content); err != nil {
		t.Fatal(err)
	}
	location, err := nex.ParseLocation("nats://NEXCLIFILES/" + name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(content))
	return nex.Workload{Name: name, Type: typ, Location: location, SHA256: hex.EncodeToString(sum[:])}
}

// withPayments returns a copy of the template that has the namespace too.
func withPayments(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	payments := strings.NewReplacer(
		".default", ".payments", `"default.`, `"payments.`, "DEFAULT", "PAYMENTS", "user: developer", "user: payer", "$DEVELOPER_", "$PAYER_")
	var lines, copied []string
	inAccount := false
	for line := range strings.Lines(string(text)) {
		lines = append(lines, line)
		inAccount = inAccount || strings.HasPrefix(line, "  DEFAULT {")
		switch {
		case inAccount:
			copied = append(copied, payments.Replace(line))
			if line == "  }\n" {
				inAccount = false
				lines = append(lines, copied...)
			}
		case strings.HasSuffix(line, "# one per namespace\n"):
			lines = append(lines, payments.Replace(line))
		}
	}
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// standIn answers whatever reaches a node.
func (g *guarded) standIn(t *testing.T) {
	t.Helper()
	nc, _ := g.connect(t, "node")
	yes := func(m *nats.Msg) { _ = m.Respond([]byte("yes")) } // fails only for want of a reply subject
	for _, subject := range []string{"$NEX.PING", "$NEX.PING.N", "$NEX.WPING.>", "$NEX.AUCTION", "$NEX.INFO.*.N", "$NEX.LAMEDUCK.N", "$NEX.DEPLOY.*.N", "$NEX.STOP.*.N"} {
		if _, err := nc.Subscribe(subject, yes); err != nil {
			t.Fatal(err)
		}
	}
	_, err := nc.QueueSubscribe("default.>", "nex.default.all", yes)
	if err := errors.Join(err, nc.Flush(), nc.LastError()); err != nil {
		t.Fatal(err)
	}
}
