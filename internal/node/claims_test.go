package node_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
	"nex/internal/nextest"
)

// lean are settings of a node whose tests need few machines.
func lean(t *testing.T) config.Config {
	s := settings(t)
	s.PoolSize = 0
	return s
}

// send deploys a request as it is.
func (r *rig) send(t *testing.T, req nex.DeployRequest) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), nextest.Patience)
	defer cancel()
	_, err := r.Deploy(ctx, r.node.NodeID, req)
	return err
}

// wantRefused checks an error's code and a part of its text.
func wantRefused(t *testing.T, what string, err error, code nex.Code, text string) {
	t.Helper()
	if nex.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v (%s); want %s: …%s…", what, err, nex.CodeOf(err), code, text)
	}
}

// function is a workload on one subject that deploys.
func (r *rig) function(t *testing.T, name string) nex.Workload {
	t.Helper()
	w := r.upload(t, name, nex.V8, []byte(echo))
	w.TriggerSubjects = []string{"t." + name}
	return w
}

// TestClaimsAreForOneRequest: nothing that was signed is good for anything but
// what it was signed for.
func TestClaimsAreForOneRequest(t *testing.T) {
	r := newRig(t, lean(t))
	w := r.function(t, "echo")
	sign := func(change func(*nex.Workload, *nex.Target)) nex.DeployRequest {
		t.Helper()
		w, target := w, r.target()
		change(&w, &target)
		req, err := r.keys.Deploy(w, target)
		if err != nil {
			t.Fatal(err)
		}
		return req
	}
	same := func(*nex.Workload, *nex.Target) {}
	other, _ := nkeys.CreateServer()
	otherID, _ := other.PublicKey()

	wantRefused(t, "another node", r.send(t, sign(func(_ *nex.Workload, to *nex.Target) { to.Node = otherID })), nex.Unauthorized, "another node")
	wantRefused(t, "another namespace", r.send(t, sign(func(_ *nex.Workload, to *nex.Target) { to.Namespace = "other" })), nex.Unauthorized, `namespace "other"`)
	for name, change := range map[string]func(*nex.DeployRequest){
		"location":  func(d *nex.DeployRequest) { d.Location.Path = "/other" },
		"argv":      func(d *nex.DeployRequest) { d.Argv = []string{"x"} },
		"triggers":  func(d *nex.DeployRequest) { d.TriggerSubjects = []string{"elsewhere"} },
		"settings":  func(d *nex.DeployRequest) { d.FunctionTimeoutMS = 9 },
		"essential": func(d *nex.DeployRequest) { d.Essential = true },
		"environment": func(d *nex.DeployRequest) {
			env, err := nex.SealEnvironment(map[string]string{"EVIL": "1"}, r.keys.Sender, r.node.TargetXkey)
			if err != nil {
				t.Fatal(err)
			}
			d.Environment = env
		},
	} {
		req := sign(same)
		change(&req)
		wantRefused(t, "changed "+name, r.send(t, req), nex.Unauthorized, "changed after its claims were signed")
	}
	stop, err := r.keys.Stop("echo", "w1", r.target())
	if err != nil {
		t.Fatal(err)
	}
	mixed := sign(same)
	mixed.WorkloadJWT = stop.WorkloadJWT
	wantRefused(t, "claims of a stop", r.send(t, mixed), nex.Unauthorized, "those of a stop request")
	if err := r.send(t, sign(same)); err != nil {
		t.Errorf("unchanged: %v", err)
	}
}

// TestStopClaims: who may stop what, with claims of ours and of Nex 0.2.7.
func TestStopClaims(t *testing.T) {
	r := newRig(t, lean(t))
	a, b := r.mustDeployJS(t, "one", "t.a", echo), r.mustDeployJS(t, "two", "t.b", echo)
	stranger := nex.Keys{}
	stranger.Issuer, _ = nkeys.CreateAccount()
	send := func(jwt, id string) error {
		_, err := r.Stop(t.Context(), r.node.NodeID, nex.StopRequest{WorkloadID: id, WorkloadJWT: jwt})
		return err
	}
	sign := func(k nex.Keys, name, id string, to nex.Target) string {
		req, err := k.Stop(name, id, to)
		if err != nil {
			t.Fatal(err)
		}
		return req.WorkloadJWT
	}
	deploy, err := r.keys.Deploy(nex.Workload{Name: "one"}, r.target())
	if err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "claims of a deploy", send(deploy.WorkloadJWT, a), nex.Unauthorized, "cloned or captured")
	wantRefused(t, "an unknown workload", send(sign(r.keys, "one", "nope", r.target()), "nope"), nex.NotFound, "No such workload")
	elsewhere, otherNode := r.target(), r.target()
	elsewhere.Namespace, otherNode.Node = "other", "N2"
	wantRefused(t, "claims for another workload", send(sign(r.keys, "one", a, r.target()), b), nex.Unauthorized, "stop claims are for workload")
	wantRefused(t, "another name", send(sign(r.keys, "two", a, r.target()), a), nex.Unauthorized, "subject does not match")
	wantRefused(t, "a stranger", send(sign(stranger, "one", a, r.target()), a), nex.Unauthorized, "the only entity allowed")
	wantRefused(t, "another namespace", send(sign(r.keys, "one", a, elsewhere), a), nex.Unauthorized, `namespace "other"`)
	wantRefused(t, "another node", send(sign(r.keys, "one", a, otherNode), a), nex.Unauthorized, "another node")

	old := func(issued time.Time) string {
		// The library signs for now; a claim of another time is made by hand.
		return signOld(t, r.keys.Issuer, "one", "", issued)
	}
	wantRefused(t, "claims older than the workload", send(old(time.Now().Add(-time.Hour)), a), nex.Unauthorized, "cloned or captured")
	if err := send(old(time.Now().Add(time.Hour)), a); err != nil {
		t.Errorf("claims of Nex 0.2.7: %v", err)
	}
	// The deploy was in this second, or the one before.
	if err := r.stop(t, "two", b); err != nil {
		t.Errorf("a stop within the same second: %v", err)
	}
}

// signOld makes claims as Nex 0.2.7 does, of any time.
func signOld(t *testing.T, issuer nkeys.KeyPair, name, hash string, issued time.Time) string {
	t.Helper()
	c := jwt.NewGenericClaims(name)
	if hash != "" {
		c.Data["hash"] = hash
	}
	token, err := c.Encode(issuer)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	var payload map[string]any
	if err := json.Unmarshal(unbase64(t, parts[1]), &payload); err != nil {
		t.Fatal(err)
	}
	payload["iat"], payload["jti"] = issued.Unix(), "HANDMADE"
	body, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	signed := parts[0] + "." + base64url(body)
	sig, err := issuer.Sign([]byte(signed))
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64url(sig)
}

// oldRequest deploys w as Nex 0.2.7 would.
func (r *rig) oldRequest(t *testing.T, w nex.Workload, hash string) nex.DeployRequest {
	t.Helper()
	req, err := r.keys.Deploy(w, r.target())
	if err != nil {
		t.Fatal(err)
	}
	req.WorkloadJWT = signOld(t, r.keys.Issuer, w.Name, hash, time.Now().Add(-time.Minute))
	return req
}

func TestPolicyOfClaims(t *testing.T) {
	s := lean(t)
	s.RequireBoundClaims, s.RequireDigest = true, true
	r := newRig(t, s)
	w := r.function(t, "echo")
	wantRefused(t, "claims of Nex 0.2.7", r.send(t, r.oldRequest(t, w, w.SHA256)), nex.Unauthorized, "require_bound_claims")
	without := w
	without.SHA256 = ""
	_, err := r.deploy(t, without)
	wantRefused(t, "claims without a digest", err, nex.Unauthorized, "require_digest")
	wrong := w
	wrong.SHA256 = strings.Repeat("0", 64)
	_, err = r.deploy(t, wrong)
	wantRefused(t, "another digest", err, nex.Unauthorized, "but the claim says "+wrong.SHA256)
	reply, err := r.deploy(t, w)
	if err != nil {
		t.Fatal(err)
	}
	old := signOld(t, r.keys.Issuer, w.Name, "", time.Now().Add(time.Hour))
	_, err = r.Stop(t.Context(), r.node.NodeID, nex.StopRequest{WorkloadID: reply.ID, WorkloadJWT: old})
	wantRefused(t, "a stop of Nex 0.2.7", err, nex.Unauthorized, "require_bound_claims")
}

func TestUnsignedContentOfOldClients(t *testing.T) {
	r := newRig(t, lean(t))
	w := r.function(t, "echo")
	if err := r.send(t, r.oldRequest(t, w, "abc12345TODOmakethisreal")); err != nil {
		t.Errorf("a placeholder: %v", err)
	}
	w.Name = "other"
	wantRefused(t, "64 digits that are wrong", r.send(t, r.oldRequest(t, w, strings.Repeat("0", 64))), nex.Unauthorized, "but the claim says")
}

func TestAdministratorsAlone(t *testing.T) {
	admin, _ := nkeys.CreateAccount()
	public, _ := admin.PublicKey()
	s := lean(t)
	s.AdminIssuers = []string{public}
	r := newRig(t, s)
	ask := func(k nex.Keys, target nex.Target) error {
		req, err := k.LameDuck(target)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.LameDuck(t.Context(), r.node.NodeID, req)
		return err
	}
	_, err := r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{})
	wantRefused(t, "nobody", err, nex.Unauthorized, "Failed to enter lame duck mode: this node takes the command from its administrators alone")
	wantRefused(t, "a stranger", ask(r.keys, r.target()), nex.Unauthorized, "is no administrator")
	wantRefused(t, "for another node", ask(nex.Keys{Issuer: admin}, nex.Target{Node: "N2"}), nex.Unauthorized, "another node")
	stop, err := nex.Keys{Issuer: admin}.Stop("x", "y", r.target())
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{AdminJWT: stop.WorkloadJWT})
	wantRefused(t, "claims of a stop", err, nex.Unauthorized, "those of a stop request")
	_, err = r.LameDuck(t.Context(), r.node.NodeID, nex.LameDuckRequest{AdminJWT: signOld(t, admin, "lameduck", "", time.Now())})
	wantRefused(t, "claims that say nothing", err, nex.Unauthorized, "do not say what they are for")
	if n, err := r.Ping(t.Context(), r.node.NodeID); err != nil || n.LameDuck() {
		t.Fatalf("lame duck: %t, %v", n.LameDuck(), err)
	}
	if err := ask(nex.Keys{Issuer: admin}, r.target()); err != nil {
		t.Errorf("the administrator: %v", err)
	}
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
