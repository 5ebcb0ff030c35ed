package node

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/config"
	"nex/internal/workload"
)

// admitting is as much of a node as decides who may do what, and the keys of
// those who ask. One of the issuers is an administrator.
type admitting struct {
	*node
	issuer, stranger nkeys.KeyPair
	sender           nkeys.KeyPair
}

func newAdmitting(f *testing.F) admitting {
	pair := func(create func() (nkeys.KeyPair, error)) nkeys.KeyPair {
		key, err := create()
		if err != nil {
			f.Fatal(err)
		}
		return key
	}
	public := func(key nkeys.KeyPair) string {
		id, err := key.PublicKey()
		if err != nil {
			f.Fatal(err)
		}
		return id
	}
	a := admitting{issuer: pair(nkeys.CreateAccount), stranger: pair(nkeys.CreateAccount), sender: pair(nkeys.CreateCurveKeys)}
	curve := pair(nkeys.CreateCurveKeys)
	s := config.Default()
	s.Sandbox, s.AdminIssuers, s.DenyTriggerSubjects = nex.SandboxNone, []string{public(a.issuer)}, append(s.DenyTriggerSubjects, "secret.*")
	a.node = &node{
		cfg: Config{Settings: s}, log: slog.New(slog.DiscardHandler), now: time.Now,
		identity:  identity{id: public(pair(nkeys.CreateServer)), xkey: public(curve), open: curve},
		workloads: workload.NewManager(workload.Config{}),
	}
	var err error
	if a.replays, err = openReplays(filepath.Join(f.TempDir(), "replays"), a.now); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = a.replays.close() })
	return a
}

// sign makes a JWT of any payload, which need not be one that clients make.
func sign(t testing.TB, key nkeys.KeyPair, payload map[string]any) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	id, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	payload["iss"] = id
	body, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	token := b64([]byte(`{"typ":"JWT","alg":"ed25519-nkey"}`)) + "." + b64(body)
	sig, err := key.Sign([]byte(token))
	if err != nil {
		t.Fatal(err)
	}
	return token + "." + b64(sig)
}

// wantRefusal checks that an error is fit to be sent.
func wantRefusal(t *testing.T, err error, secret string) {
	t.Helper()
	if code := nex.CodeOf(err); !code.Known() || code == nex.Internal || err.Error() == "" || strings.Contains(err.Error(), secret) {
		t.Errorf("%s: %v", code, err)
	}
}

// FuzzAdmit has any request signed as those of Nex 0.2.7 are, by somebody who
// is free to do so. What is admitted keeps the node's rules.
func FuzzAdmit(f *testing.F) {
	const secret = "hunter2"
	for _, s := range []string{
		`{"type":"v8","location":"nats://B/k","trigger_subjects":["js.echo","a","a"]}`,
		`{"type":"v8","location":"nats://B/k","trigger_subjects":["*.x"]}`,
		`{"type":"v8","location":"nats://B/k","trigger_subjects":[">"],"max_concurrency":5}`,
		`{"type":"elf","location":{"Host":"B","Path":"/a/../b/"},"essential":true,"stop_grace_ms":1,"source_name":"../x"}`,
		`{"type":"native","location":"nats://B/k","argv":["\u0000"],"jsdomain":"a b","sandbox":"os"}`,
		`{"type":"wasm","location":"nats://B/k","trigger_subjects":["` + strings.Repeat("x", 5000) + `"]}`,
		`{"type":"v8","trigger_connection":{"nats_user_seed":"hunter2"}}`, `{}`, `null`,
	} {
		f.Add([]byte(s), "echofn", "default")
		f.Add([]byte(s), "bad name\n", "system")
		f.Add([]byte(s), strings.Repeat("n", 5000), strings.Repeat("n", 4000))
	}
	a := newAdmitting(f)
	f.Fuzz(func(t *testing.T, data []byte, name, namespace string) {
		var r nex.DeployRequest
		if json.Unmarshal(data, &r) != nil {
			return
		}
		var err error
		if r.Environment, err = nex.SealEnvironment(map[string]string{"A": secret}, a.sender, a.identity.xkey); err != nil {
			t.Fatal(err)
		}
		r.SenderPublicKey, _ = a.sender.PublicKey()
		r.WorkloadJWT = sign(t, a.issuer, map[string]any{"sub": name})
		spec, err := a.admit(a.candidate(namespace, r))
		if err != nil {
			wantRefusal(t, err, secret)
			return
		}
		wantLawful(t, a.cfg.Settings, spec)
		if spec.Environment["A"] != secret || spec.Namespace != namespace || spec.Name != name {
			t.Errorf("asked for %q, %q, got %+v", namespace, name, spec)
		}
		if _, err := a.admit(a.candidate(namespace, r)); nex.CodeOf(err) != nex.Unauthorized {
			t.Errorf("the same again: %v", err)
		}
	})
}

// wantLawful checks what every workload must keep, and that all of NATS's
// lines about it are within what a server takes.
func wantLawful(t *testing.T, s config.Config, spec workload.Spec) {
	t.Helper()
	function := spec.Type.IsFunction()
	if !nex.ValidName(spec.Name) || !nex.ValidToken(spec.Namespace) || spec.Namespace == nex.SystemNamespace ||
		!slices.Contains(s.WorkloadTypes, spec.Type) || function != (len(spec.Triggers) > 0) || function && spec.Settings.Restart.Policy != "" {
		t.Errorf("admitted %+v", spec)
	}
	if spec.Artifact.Bucket == "" || spec.Artifact.Key == "" || spec.File == "" {
		t.Errorf("admitted the artifact %+v, %q", spec.Artifact, spec.File)
	}
	set := spec.Settings
	if function && (set.FunctionTimeoutMS < 1 || set.FunctionTimeoutMS > s.Ceilings.FunctionTimeoutMS) || !function && (set.StopGraceMS < 1 || set.StopGraceMS > s.Ceilings.StopGraceMS) {
		t.Errorf("admitted the settings %+v", set)
	}
	if !slices.IsSorted(spec.Triggers) || len(slices.Compact(slices.Clone(spec.Triggers))) != len(spec.Triggers) {
		t.Errorf("admitted the triggers %q", spec.Triggers)
	}
	if len(spec.Triggers) > maxTriggers {
		t.Errorf("admitted %d triggers", len(spec.Triggers))
	}
	const line, other = 4096, 200 // what else is in a line: the verb, ids, sizes, inboxes
	for _, trigger := range spec.Triggers {
		if err := nex.ValidTrigger(trigger); err != nil || slices.ContainsFunc(s.DenyTriggerSubjects, func(d string) bool { return nex.SubjectsOverlap(d, trigger) }) {
			t.Errorf("admitted trigger %q: %v", trigger, err)
		}
		if len(trigger)+len(spec.Namespace)+len(spec.Name) > line-other {
			t.Errorf("a subscription of %d, %d and %d bytes", len(trigger), len(spec.Namespace), len(spec.Name))
		}
	}
	if key := base64.URLEncoding.EncodeToString([]byte(spec.Artifact.Key)); len(spec.Artifact.Domain)+2*len(spec.Artifact.Bucket)+len(key) > line-other {
		t.Errorf("a request for an object of %d, %d and %d bytes", len(spec.Artifact.Domain), len(spec.Artifact.Bucket), len(key))
	}
}

// FuzzBid holds any auction against the node: whoever bids would not refuse
// the triggers and settings in a deploy.
func FuzzBid(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `{"workload_types":["v8","native","v8"],"trigger_subjects":["a"],"explain":true}`, `{"bytes":-1,"issuer":"A"}`,
		`{"workload_types":["v8"],"trigger_subjects":["secret.x"]}`, `{"workload_types":["native"],"function_timeout_ms":5}`,
		`{"tags":{"` + strings.Repeat("x", 5000) + `":""},"sandbox":"os"}`,
	} {
		f.Add([]byte(s))
	}
	a := newAdmitting(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var r nex.AuctionRequest
		if json.Unmarshal(data, &r) != nil {
			return
		}
		bid, speaks := a.Auction(r)
		if speaks != (r.Explain || len(a.refusals(r, bid.NodeInfo)) == 0) || len(bid.Refusals) > 16 || !r.Explain && bid.Refusals != nil {
			t.Errorf("%s: %t, %q", data, speaks, bid.Refusals)
		}
		if !speaks || len(bid.Refusals) > 0 {
			return
		}
		for i, typ := range r.WorkloadTypes {
			c := &candidate{namespace: r.Namespace, request: nex.DeployRequest{Type: typ, TriggerSubjects: r.TriggerSubjects, Settings: r.Settings}}
			err := a.checkType(c)
			if i == 0 && err == nil && len(r.TriggerSubjects) > 0 { // the others are there to choose from
				err = errors.Join(a.checkTriggers(c), a.checkSettings(c))
			}
			if r.Namespace != "" && err == nil {
				err = a.checkNamespace(c)
			}
			if err != nil {
				t.Errorf("%s: it bids, and would say %v", data, err)
			}
		}
	})
}

// taken reports whether a request was refused because it came before: a fuzzer
// repeats itself.
func taken(err error) bool {
	return nex.CodeOf(err) == nex.Unauthorized && strings.Contains(err.Error(), "taken before")
}

// FuzzStopAndLameDuck signs any claims, as the workload's issuer and
// administrator or as a stranger. Whatever ends something has said so.
func FuzzStopAndLameDuck(f *testing.F) {
	a := newAdmitting(f)
	start := workload.Summary{ID: "w1", Spec: workload.Spec{Namespace: "ns", Claims: nex.Claims{Name: "echofn", ID: "J", IssuedAt: time.Unix(1000, 0)}}}
	start.Spec.Claims.Issuer, _ = a.issuer.PublicKey()
	id := a.identity.id
	for _, s := range []string{
		`{"sub":"echofn","iat":1001}`, `{"sub":"echofn","iat":1000}`, `{"sub":"echofn","iat":1001,"jti":"J"}`, `{"sub":"x","iat":1001}`, `{"sub":"echofn","iat":1001,"exp":5}`,
		`{"sub":"echofn","nats":{"use":"stop","nonce":"n","namespace":"ns","node":"` + id + `","workload":"w1","expires":4000000000}}`,
		`{"sub":"echofn","nats":{"use":"stop","nonce":"n","namespace":"ns","node":"` + id + `","workload":"w2","expires":4000000000}}`,
		`{"sub":"echofn","nats":{"use":"deploy","nonce":"n","namespace":"ns","node":"` + id + `","workload":"w1","expires":4000000000}}`,
		`{"sub":"x","exp":4000000000,"nats":{"use":"lameduck","nonce":"n","node":"` + id + `"}}`,
		`{"sub":"x","exp":4000000000,"nats":{"use":"lameduck","nonce":"n","node":"N2"}}`,
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, own bool) {
		var payload map[string]any
		if json.Unmarshal(data, &payload) != nil || payload == nil {
			return
		}
		key := a.stranger
		if own {
			key = a.issuer
		}
		payload["jti"] = string(data) // or the same claims come twice
		token := sign(t, key, payload)
		c, err := nex.DecodeClaims(token)
		if err != nil {
			return
		}
		in := func(p nex.Purpose, namespace string) bool {
			return c.Purpose == p && c.Nonce != "" && c.Namespace == namespace && c.Node == id && !c.Expires.IsZero()
		}
		valid := own && c.ValidAt(a.now())
		request := nex.StopRequest{WorkloadID: "w1", WorkloadJWT: token}
		mayStop := valid && c.Name == "echofn" && c.Hash == "" &&
			(in(nex.ForStop, "ns") && c.Workload == "w1" || !c.Bound() && c.IssuedAt.Unix() > 1000)
		if err := a.admitStop(request, start); (err == nil) != mayStop && !(mayStop && taken(err)) {
			t.Errorf("%+v: may stop: %t, %v", c, mayStop, err)
		}
		if err := a.admitStop(request, start); err == nil {
			t.Errorf("%+v are good for two stops", c)
		} else {
			wantRefusal(t, err, "hunter2")
		}
		if err := a.admitLameDuck(nex.LameDuckRequest{AdminJWT: token}); (err == nil) != (valid && in(nex.ForLameDuck, "")) && !taken(err) {
			t.Errorf("%+v: lame duck: %v", c, err)
		}
	})
}
