package nex

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// ClaimsLife is how long after it was signed a request is taken by our nodes.
const ClaimsLife = 5 * time.Minute

// Keys are what a client signs and seals with.
type Keys struct {
	Issuer nkeys.KeyPair // signs; by convention an account key
	Sender nkeys.KeyPair // seals environments; a curve key
}

// Target is the node a request is for, and the namespace.
type Target struct {
	Namespace string
	Node      string // the node's id
	Xkey      string // the node's public curve key; for deploys only
}

// Workload is what a client asks to run, before it is signed and sealed for
// one node.
type Workload struct {
	Name            string
	Type            WorkloadType
	Location        Location
	SHA256          string // lowercase hex digest of the artifact; "" when unknown
	Description     string
	Argv            []string
	Environment     map[string]string
	Essential       bool
	TriggerSubjects []string
	JSDomain        string
	SourceName      string // file name shown in error texts, "" for the object's key
	Settings        Settings
	// TriggerConnection is where the trigger subjects are, nil for the node's
	// own NATS. The node sees its secret.
	TriggerConnection *NATSAccess
	// HostServices is the NATS behind the workload's host services, nil for
	// what the node says. The node sees its secret.
	HostServices *NATSAccess
}

// Deploy signs w and seals its environment for one node.
func (k Keys) Deploy(w Workload, t Target) (DeployRequest, error) {
	if !ValidName(w.Name) {
		return DeployRequest{}, Errorf(Invalid, "workload name %.64q is too long or does not match %s", w.Name, NamePattern)
	}
	env, err := SealEnvironment(w.Environment, k.Sender, t.Xkey)
	if err != nil {
		return DeployRequest{}, err
	}
	sender, err := k.Sender.PublicKey()
	if err != nil {
		return DeployRequest{}, fmt.Errorf("read the sender's public key: %w", err)
	}
	r := DeployRequest{
		Type: w.Type, Location: w.Location, Description: w.Description, Argv: w.Argv,
		Essential: w.Essential, Environment: env, SenderPublicKey: sender,
		JSDomain: w.JSDomain, TargetNode: t.Node, TriggerSubjects: w.TriggerSubjects,
		SourceName: w.SourceName, Settings: w.Settings, TriggerConnection: w.TriggerConnection,
		HostServices: w.HostServices,
	}
	c := Claims{Name: w.Name, Hash: hashOf(w.SHA256)}
	c.Purpose, c.Namespace, c.Node = ForDeploy, t.Namespace, t.Node
	if c.Request, err = r.Fingerprint(); err != nil {
		return DeployRequest{}, err
	}
	// A node of Nex 0.2.7 presents the claims of an essential service again
	// each time it restarts it: they must not expire there.
	r.WorkloadJWT, err = k.sign(c, w.Essential)
	return r, err
}

// Stop signs a request that ends the workload with this name and id.
func (k Keys) Stop(name, id string, t Target) (StopRequest, error) {
	c := Claims{Name: name}
	c.Purpose, c.Namespace, c.Node, c.Workload = ForStop, t.Namespace, t.Node, id
	token, err := k.sign(c, false)
	return StopRequest{WorkloadID: id, WorkloadJWT: token, TargetNode: t.Node}, err
}

// LameDuck signs a request that puts a node into lame duck mode.
func (k Keys) LameDuck(t Target) (LameDuckRequest, error) {
	c := Claims{Name: string(ForLameDuck)}
	c.Purpose, c.Node = ForLameDuck, t.Node
	token, err := k.sign(c, false)
	return LameDuckRequest{AdminJWT: token}, err
}

// Drain signs a request that puts a node into lame duck mode and ends what it
// runs. Its claims are for that alone.
func (k Keys) Drain(t Target) (r LameDuckRequest, err error) {
	r.Drain = true
	c := Claims{Name: string(ForLameDuck)}
	c.Purpose, c.Node = ForLameDuck, t.Node
	if c.Request, err = r.Fingerprint(); err != nil {
		return LameDuckRequest{}, err
	}
	r.AdminJWT, err = k.sign(c, false)
	return r, err
}

// sign makes the JWT of claims that expire after [ClaimsLife]; with ours, only
// our nodes see that they do.
func (k Keys) sign(c Claims, ours bool) (string, error) {
	c.Nonce = rand.Text()
	g := jwt.NewGenericClaims(c.Name)
	g.Data = c.data()
	if expires := time.Now().Add(ClaimsLife).Unix(); ours {
		g.Data[expiresClaim] = expires
	} else {
		g.Expires = expires
	}
	token, err := g.Encode(k.Issuer)
	if err != nil {
		return "", fmt.Errorf("sign claims: %w", err)
	}
	return token, nil
}

// Fingerprint is the SHA-256, in lowercase hex, of all of a request but its
// JWT: its JSON with sorted keys.
func (r DeployRequest) Fingerprint() (string, error) {
	r.WorkloadJWT = ""
	return fingerprint(r)
}

// Fingerprint is the SHA-256, in lowercase hex, of all of a request but its
// JWT: its JSON with sorted keys.
func (r LameDuckRequest) Fingerprint() (string, error) {
	r.AdminJWT = ""
	return fingerprint(r)
}

func fingerprint(request any) (string, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	var fields map[string]any // again, as who reads it from the wire would encode it
	exact := json.NewDecoder(bytes.NewReader(data))
	exact.UseNumber()
	if err := exact.Decode(&fields); err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	if data, err = json.Marshal(fields); err != nil {
		return "", fmt.Errorf("encode request: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
