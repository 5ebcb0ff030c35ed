package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/nextest"
	"nex/internal/node"
)

// answers checks that the node hears and answers.
func (r *rig) answers(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
	defer cancel()
	if _, err := r.Ping(ctx, r.node.NodeID); err != nil {
		t.Fatalf("the node is deaf: %v", err)
	}
}

// TestLongTextsInSubjects: a server ends the connection of a node that speaks
// too long a line, and the client library does not try again.
func TestLongTextsInSubjects(t *testing.T) {
	r := newRig(t, lean(t))
	w := r.function(t, "boom")
	w.JSDomain = strings.Repeat("d", 5000)
	_, err := r.deploy(t, w)
	wantRefused(t, "an endless domain", err, nex.Invalid, "jsdomain")
	r.answers(t)

	r.mustDeployJS(t, "throws", "a", "() => { throw 1 }")
	for _, size := range []int{1000, 1025, 4000, 4070, 4085, 4092} {
		if err := r.nc.PublishRequest("a", strings.Repeat("r", size), nil); err != nil {
			t.Fatal(err)
		}
	}
	r.call(t, "a", nil)
	r.answers(t)
}

// TestNodeThatIsCutOffEnds: when NATS is gone for good, so is the node.
func TestNodeThatIsCutOffEnds(t *testing.T) {
	srv := nextest.Server(t)
	conn, ready, ended := make(chan *nats.Conn, 1), make(chan nex.NodeInfo, 1), make(chan error, 1)
	capture := func(o *nats.Options) error {
		connected := o.ConnectedCB
		o.ConnectedCB = func(nc *nats.Conn) { conn <- nc; connected(nc) }
		return nil
	}
	go func() {
		ended <- node.Run(t.Context(), node.Config{
			Settings: lean(t), StateDir: t.TempDir(), Server: srv.ClientURL(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Options: []nats.Option{capture}, Ready: func(n nex.NodeInfo) { ready <- n },
		})
	}()
	nextest.Await(t, ready, "the node")
	nextest.Await(t, conn, "the connection").Close()
	if err := nextest.Await(t, ended, "the node's end"); err == nil || !strings.Contains(err.Error(), "ended for good") {
		t.Errorf("got %v", err)
	}
}

// TestLargeRequestsAreCheap: what costs little to send costs little to answer.
func TestLargeRequestsAreCheap(t *testing.T) {
	r := newRig(t, lean(t))
	var many nex.AuctionRequest
	for i := range 20_000 {
		many.TriggerSubjects = append(many.TriggerSubjects, fmt.Sprint("t", i))
		many.WorkloadTypes = append(many.WorkloadTypes, nex.V8)
	}
	start := time.Now()
	r.bids(t, many)
	r.answers(t)
	if took := time.Since(start); took > nextest.Patience/2 { // minutes, when each is held against each
		t.Errorf("an auction took %s", took)
	}
	w := r.function(t, "greedy")
	w.TriggerSubjects = many.TriggerSubjects
	_, err := r.deploy(t, w)
	wantRefused(t, "a function with 20,000 triggers", err, nex.Invalid, "at most 256 trigger subjects")
}

// TestJWTsOfNATSAreNoClaims: an account in valid_issuers signs users too.
func TestJWTsOfNATSAreNoClaims(t *testing.T) {
	s := lean(t)
	account, _ := nkeys.CreateAccount()
	public, _ := account.PublicKey()
	s.ValidIssuers = []string{public}
	r := newRig(t, s)
	user, _ := nkeys.CreateUser()
	userKey, _ := user.PublicKey()
	token, err := jwt.NewUserClaims(userKey).Encode(account)
	if err != nil {
		t.Fatal(err)
	}
	req := r.oldRequest(t, r.function(t, "echo"), "")
	req.WorkloadJWT = token
	wantRefused(t, "a user's JWT", r.send(t, req), nex.Unauthorized, `it is a JWT of type "user"`)
}

// TestLameDuckCommandIsForOneLife of a node, not for the next one on the same
// state directory.
func TestLameDuckCommandIsForOneLife(t *testing.T) {
	admin, _ := nkeys.CreateAccount()
	s := lean(t)
	public, _ := admin.PublicKey()
	s.AdminIssuers = []string{public}
	srv := nextest.Server(t)
	r := newRigOn(t, srv, s)
	req, err := nex.Keys{Issuer: admin}.LameDuck(r.target())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.LameDuck(t.Context(), r.node.NodeID, req); err != nil {
		t.Fatal(err)
	}
	r.end()
	again, _ := runNode(t, srv.ClientURL(), r.dir, s)
	_, err = r.LameDuck(t.Context(), again.NodeID, req)
	wantRefused(t, "the same command", err, nex.Unauthorized, "was taken before")
	if n, err := r.Ping(t.Context(), again.NodeID); err != nil || n.LameDuck() {
		t.Errorf("lame duck: %t, %v", n.LameDuck(), err)
	}
}

// TestOneBoxHasOneText: a captured environment, written otherwise, is the same
// request.
func TestOneBoxHasOneText(t *testing.T) {
	r := newRig(t, lean(t))
	req := r.oldRequest(t, r.function(t, "echo"), "")
	if err := r.send(t, req); err != nil {
		t.Fatal(err)
	}
	sealed := req.Environment
	for _, other := range []string{sealed, sealed + "\n", "\r" + sealed, sealed[:8] + "\n" + sealed[8:]} {
		req.Environment = other
		if err := r.send(t, req); nex.CodeOf(err) != nex.Unauthorized && nex.CodeOf(err) != nex.Invalid {
			t.Errorf("%q: %v", other, err)
		}
	}
}
