package node_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/nextest"
	"nex/internal/node"
)

// certificate makes one for loopback, and a pool that trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// freePort returns a loopback port that nobody has now.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// cluster is three NATS servers with TLS and JetStream.
type cluster struct {
	options []*server.Options
	members []*server.Server
}

func newCluster(t *testing.T, cert tls.Certificate) *cluster {
	t.Helper()
	c := &cluster{}
	var routes []*url.URL
	for i := range 3 {
		cluster := freePort(t)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", cluster)})
		c.options = append(c.options, &server.Options{
			ServerName: fmt.Sprintf("member-%d", i), Host: "127.0.0.1", Port: freePort(t), NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), Username: "u", Password: "p",
			TLS: true, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}, TLSTimeout: 5,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: cluster},
		})
	}
	c.members = make([]*server.Server, 3)
	for i := range c.options {
		c.options[i].Routes = routes
		c.start(t, i)
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.stop(i)
		}
	})
	return c
}

func (c *cluster) start(t *testing.T, i int) {
	t.Helper()
	s, err := server.NewServer(c.options[i].Clone())
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	c.members[i] = s
}

func (c *cluster) stop(i int) {
	c.members[i].Shutdown()
	c.members[i].WaitForShutdown()
}

func (c *cluster) url() string {
	var all []string
	for _, o := range c.options {
		all = append(all, fmt.Sprintf("nats://127.0.0.1:%d", o.Port))
	}
	return strings.Join(all, ",")
}

// TestClusterMembersRestartOneByOne: the node works on, over TLS.
func TestClusterMembersRestartOneByOne(t *testing.T) {
	cert, pool := certificate(t)
	c := newCluster(t, cert)
	secure := []nats.Option{nats.UserInfo("u", "p"), nats.Secure(&tls.Config{RootCAs: pool}), nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond)}
	nc, err := nats.Connect(c.url(), append(secure, nats.RetryOnFailedConnect(true))...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	content := []byte(echo)
	retry(t, "a replicated bucket", func(ctx context.Context) error {
		bucket, err := js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "TEST", Replicas: 3})
		if err == nil {
			_, err = bucket.PutBytes(ctx, "echo", content)
		}
		return err
	})
	r := &rig{nc: nc, dir: t.TempDir()}
	if r.Client, err = nex.NewClient(nc, ""); err != nil {
		t.Fatal(err)
	}
	r.keys.Issuer, _ = nkeys.CreateAccount()
	r.keys.Sender, _ = nkeys.CreateCurveKeys()
	r.node, r.end = runConfig(t, node.Config{
		Settings: settings(t), Version: "test", StateDir: r.dir, Server: c.url(), Options: secure,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	deploy := func(name string) {
		t.Helper()
		location, err := nex.ParseLocation("nats://TEST/echo")
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(content)
		w := nex.Workload{Name: name, Type: nex.V8, Location: location, SHA256: hex.EncodeToString(sum[:]), TriggerSubjects: []string{"c." + name}}
		retry(t, "the deploy of "+name, func(context.Context) error { _, err := r.deploy(t, w); return err })
	}
	deploy("first")
	for i := range c.members {
		c.stop(i)
		r.awaitAnswers(t, []string{"c.first"})
		c.start(t, i)
		r.awaitAnswers(t, []string{"c.first"})
		deploy(fmt.Sprintf("after-%d", i))
		r.awaitAnswers(t, []string{fmt.Sprintf("c.after-%d", i)})
	}
	info, err := r.Info(t.Context(), r.node.NodeID)
	if err != nil || len(info.Machines) != 4 {
		t.Errorf("info %+v, %v", info.Machines, err)
	}
}

// retry does something until it succeeds.
func retry(t *testing.T, what string, do func(context.Context) error) {
	t.Helper()
	deadline := time.After(2 * nextest.Patience)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := do(ctx)
		cancel()
		if err == nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// TestCredentialsAreReadAgain: those that a node began with are not valid any
// more, and others are in their file.
func TestCredentialsAreReadAgain(t *testing.T) {
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	accountID, _ := account.PublicKey()
	operator, _ := nkeys.CreateOperator()
	operatorID, _ := operator.PublicKey()
	resolver := &server.MemAccResolver{}
	claims := jwt.NewAccountClaims(accountID)
	publish := func() {
		text, err := claims.Encode(operator)
		if err == nil {
			err = resolver.Store(accountID, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	publish()
	srv, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, AccountResolver: resolver,
		TrustedKeys: []string{operatorID},
	})
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	defer func() { srv.Shutdown(); srv.WaitForShutdown() }()
	file := filepath.Join(t.TempDir(), "node.creds")
	write := func() (user string) {
		key, _ := nkeys.CreateUser()
		user, _ = key.PublicKey()
		text, err := jwt.NewUserClaims(user).Encode(account)
		if err != nil {
			t.Fatal(err)
		}
		seed, _ := key.Seed()
		creds, err := jwt.FormatUserConfig(text, seed)
		if err == nil {
			err = os.WriteFile(file, creds, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return user
	}
	first := write()
	nodeInfo, _ := runNode(t, srv.ClientURL(), t.TempDir(), settings(t), nats.UserCredentials(file), nats.ReconnectWait(50*time.Millisecond))
	write()
	claims.Revoke(first)
	publish()
	if a, err := srv.LookupAccount(accountID); err != nil {
		t.Fatal(err)
	} else {
		srv.UpdateAccountClaims(a, claims) // ends the connections of revoked users
	}
	nc, err := nats.Connect(srv.ClientURL(), nats.UserCredentials(file))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	client, err := nex.NewClient(nc, "")
	if err != nil {
		t.Fatal(err)
	}
	retry(t, "an answer of the node", func(ctx context.Context) error {
		_, err := client.Info(ctx, nodeInfo.NodeID)
		return err
	})
}
