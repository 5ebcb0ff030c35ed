package nex_test

import (
	"maps"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/jwt/v2"

	"nex"
)

// TestSignedRequests checks what a client signs by the rules of the vectors,
// in a bubble of time: claims differ when they are of different seconds.
func TestSignedRequests(t *testing.T) {
	k := vector[keyring](t, "crypto")
	keys := k.keys(t)
	synctest.Test(t, func(t *testing.T) {
		env := map[string]string{"A": "1"}
		yes := true
		w := nex.Workload{
			Name: "echofn", Type: nex.V8, SHA256: k.Artifact.SHA256, Environment: env, Description: "d",
			Argv: []string{"x"}, TriggerSubjects: []string{"js.*"}, JSDomain: "hub", SourceName: "echo.js",
			Settings: nex.Settings{FunctionTimeoutMS: 1500, Broadcast: &yes},
		}
		target := nex.Target{Namespace: "ns", Node: "N1", Xkey: k.NodeX.Public}
		r, err := keys.Deploy(w, target)
		if err != nil {
			t.Fatal(err)
		}
		start := decodeClaims(t, r.WorkloadJWT)
		if !mayDeploy(start, time.Now()) || start.Name != "echofn" || start.Digest() != k.Artifact.SHA256 || start.Issuer != k.Issuer.Public {
			t.Errorf("deploy claims %+v", start)
		}
		if r.SenderPublicKey != k.SenderX.Public || r.TargetNode != "N1" || r.Type != nex.V8 || r.Description != "d" || r.JSDomain != "hub" ||
			!reflect.DeepEqual(r.Settings, w.Settings) || r.SourceName != "echo.js" || len(r.Argv) != 1 || len(r.TriggerSubjects) != 1 {
			t.Errorf("request %+v", r)
		}
		if got, err := nex.OpenEnvironment(r.Environment, keyOf(t, k.NodeX.Seed), r.SenderPublicKey); err != nil || !maps.Equal(got, env) {
			t.Errorf("environment %v, %v", got, err)
		}
		sent := parse[nex.DeployRequest](t, marshal(t, r))
		if got, err := sent.Fingerprint(); err != nil || got != start.Request {
			t.Errorf("the request as it arrives has fingerprint %s, %v; its claims say %s", got, err, start.Request)
		}
		time.Sleep(time.Second)
		s, err := keys.Stop("echofn", "w1", target)
		if err != nil {
			t.Fatal(err)
		}
		stop := decodeClaims(t, s.WorkloadJWT)
		if !mayStop(stop, start) || stop.Workload != "w1" || stop.Hash != "" || s.WorkloadID != "w1" || s.TargetNode != "N1" {
			t.Errorf("stop claims %+v in %+v", stop, s)
		}
		lame, err := keys.LameDuck(nex.Target{Node: "N1"})
		if err != nil {
			t.Fatal(err)
		}
		for purpose, c := range map[nex.Purpose]nex.Claims{
			nex.ForDeploy: start, nex.ForStop: stop, nex.ForLameDuck: decodeClaims(t, lame.AdminJWT),
		} {
			wantBound(t, c, purpose, target)
		}
	})
}

// wantBound checks that claims are good for one thing, and not for ever.
func wantBound(t *testing.T, c nex.Claims, p nex.Purpose, target nex.Target) {
	t.Helper()
	if p == nex.ForLameDuck {
		target.Namespace = ""
	}
	if err := c.Allow(p, target.Namespace, target.Node); err != nil {
		t.Errorf("%s claims: %v", p, err)
	}
	for name, err := range map[string]error{
		"another namespace": c.Allow(p, "other", target.Node),
		"another node":      c.Allow(p, target.Namespace, "N2"),
		"another purpose":   c.Allow("other", target.Namespace, target.Node),
	} {
		if nex.CodeOf(err) != nex.Unauthorized {
			t.Errorf("%s claims allow %s: %v", p, name, err)
		}
	}
	if now := time.Now(); !c.ValidAt(now) || c.ValidAt(now.Add(nex.ClaimsLife+time.Second)) {
		t.Errorf("%s claims expire at %s", p, c.Expires)
	}
	for _, cut := range []func(*nex.Claims){
		func(c *nex.Claims) { c.Nonce = "" }, func(c *nex.Claims) { c.Expires = time.Time{} },
	} {
		without := c
		cut(&without)
		if without.Allow(p, target.Namespace, target.Node) == nil {
			t.Errorf("%s claims without nonce or expiry are allowed", p)
		}
	}
}

func TestClaimsOfNothingAllowAnything(t *testing.T) {
	if err := (nex.Claims{}).Allow(nex.ForStop, "ns", "N1"); err != nil {
		t.Errorf("claims as of Nex 0.2.7: %v", err)
	}
}

// TestEssentialClaimsDoNotExpireElsewhere: nodes of Nex 0.2.7 present them at
// each restart, and look at exp alone.
func TestEssentialClaimsDoNotExpireElsewhere(t *testing.T) {
	k := vector[keyring](t, "crypto")
	for _, essential := range []bool{true, false} {
		r, err := k.keys(t).Deploy(nex.Workload{Name: "svc", Type: nex.Native, Essential: essential}, nex.Target{Namespace: "ns", Node: "N1", Xkey: k.NodeX.Public})
		if err != nil {
			t.Fatal(err)
		}
		g, err := jwt.DecodeGeneric(r.WorkloadJWT)
		if err != nil {
			t.Fatal(err)
		}
		if (g.Expires == 0) != essential {
			t.Errorf("essential %t: exp is %d", essential, g.Expires)
		}
		if c := decodeClaims(t, r.WorkloadJWT); c.Expires.IsZero() {
			t.Errorf("essential %t: the claims never expire", essential)
		}
	}
}

// TestEqualRequestsHaveDifferentClaims, though of the same second.
func TestEqualRequestsHaveDifferentClaims(t *testing.T) {
	k := vector[keyring](t, "crypto")
	synctest.Test(t, func(t *testing.T) {
		a, err1 := k.keys(t).Stop("echofn", "w1", nex.Target{})
		b, err2 := k.keys(t).Stop("echofn", "w1", nex.Target{})
		if err1 != nil || err2 != nil || a.WorkloadJWT == b.WorkloadJWT {
			t.Errorf("equal claims, %v, %v", err1, err2)
		}
	})
}

// TestFingerprintSeesEveryField changes one field at a time.
func TestFingerprintSeesEveryField(t *testing.T) {
	print := func(r nex.DeployRequest) string {
		s, err := r.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	yes := true
	full := nex.DeployRequest{
		Argv: []string{"a"}, TriggerSubjects: []string{"t"}, Description: strings.Repeat("ü\xff\u2028<", 3),
		Settings: nex.Settings{Broadcast: &yes, MaxConcurrency: 1 << 40},
	}
	if sent := parse[nex.DeployRequest](t, marshal(t, full)); print(sent) != print(full) {
		t.Error("a request changes on its way")
	}
	full.WorkloadJWT = "x"
	if full.Argv = nil; print(full) == print(nex.DeployRequest{}) {
		t.Error("two requests have one fingerprint")
	}
	zero := print(nex.DeployRequest{})
	for field, change := range map[string]string{
		"type": `"wasm"`, "location": `"nats://B/k"`, "description": `"d"`, "argv": `["a"]`, "essential": "true",
		"environment": `"e"`, "sender_public_key": `"X"`, "jsdomain": `"d"`, "target_node": `"N"`, "trigger_subjects": `["t"]`,
		"trigger_connection": `{}`, "host_services": `{"nats_url":"u"}`, "retry_count": "1", "retried_at": `"2024-07-02T10:00:20Z"`,
		"function_timeout_ms": "1", "function_memory_mib": "1", "max_concurrency": "1", "broadcast": "false", "stop_grace_ms": "1",
		"sandbox": `"os"`, "engine": `"v8"`, "source_name": `"s"`,
		"resources": `{"cpus":1}`, "restart": `"always"`, "ready": `{"after_ms":1}`,
	} {
		r := parse[nex.DeployRequest](t, []byte(`{"`+field+`":`+change+`}`))
		if print(r) == zero {
			t.Errorf("%s is not in the fingerprint", field)
		}
	}
	if n := reflect.TypeFor[nex.DeployRequest]().NumField() + reflect.TypeFor[nex.Settings]().NumField(); n != 27 {
		t.Errorf("a request has %d fields now: add the new one above", n)
	}
	if print(nex.DeployRequest{WorkloadJWT: "x"}) != zero {
		t.Error("the claims are in their own fingerprint")
	}
}

func TestDeployRefusesWhatNodesRefuse(t *testing.T) {
	k := vector[keyring](t, "crypto")
	if _, err := k.keys(t).Deploy(nex.Workload{Name: "bad name!"}, nex.Target{Xkey: k.NodeX.Public}); nex.CodeOf(err) != nex.Invalid {
		t.Errorf("bad name: %v", err)
	}
	if _, err := k.keys(t).Deploy(nex.Workload{Name: "ok"}, nex.Target{Xkey: "no key"}); err == nil {
		t.Error("sealed for a node without a key")
	}
}
