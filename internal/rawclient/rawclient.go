// Package rawclient is a control client written from the description of the
// wire of Nex 0.2.7 alone: nats.go, nkeys, the standard library and JSON by
// hand. It imports nothing of this module, so that what it and a node agree on
// is the wire and not a common mistake. Test support; safe for concurrent use.
package rawclient

import (
	"crypto/sha512"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
)

// Client asks nodes. Every method that asks returns the bytes of one reply.
type Client struct {
	Conn      *nats.Conn
	Namespace string
	Issuer    nkeys.KeyPair // signs claims
	Sender    nkeys.KeyPair // a curve key, seals environments
	Wait      time.Duration // for a reply
}

// Ask sends any body on any subject.
func (c Client) Ask(subject string, body []byte) ([]byte, error) {
	m, err := c.Conn.Request(subject, body, c.Wait)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	return m.Data, nil
}

// Ping asks all nodes, PingNode one of them.
func (c Client) Ping() ([]byte, error) { return c.Ask("$NEX.PING", nil) }

// PingNode asks one node.
func (c Client) PingNode(node string) ([]byte, error) { return c.Ask("$NEX.PING."+node, nil) }

// WorkloadPing asks who runs workloads of the namespace, those of one id or
// name unless that is "".
func (c Client) WorkloadPing(idOrName string) ([]byte, error) {
	subject := "$NEX.WPING." + c.Namespace
	if idOrName != "" {
		subject += "." + idOrName
	}
	return c.Ask(subject, nil)
}

// Auction asks who offers all that is in want: arch, os, sandboxed, tags,
// workload_types.
func (c Client) Auction(want map[string]any) ([]byte, error) { return c.askJSON("$NEX.AUCTION", want) }

// Info asks a node about itself and the workloads of the namespace.
func (c Client) Info(node string) ([]byte, error) {
	return c.Ask("$NEX.INFO."+c.Namespace+"."+node, nil)
}

// LameDuck has a node take no new work.
func (c Client) LameDuck(node string) ([]byte, error) { return c.Ask("$NEX.LAMEDUCK."+node, nil) }

// Deploy sends what [Client.DeployRequest] made.
func (c Client) Deploy(node string, request map[string]any) ([]byte, error) {
	return c.askJSON("$NEX.DEPLOY."+c.Namespace+"."+node, request)
}

// Stop ends a workload with claims that were made at a time.
func (c Client) Stop(node, id, name string, at time.Time) ([]byte, error) {
	token, err := Sign(c.Issuer, Claims{IssuedAt: at.Unix(), Subject: name})
	if err != nil {
		return nil, err
	}
	return c.askJSON("$NEX.STOP."+c.Namespace+"."+node, map[string]any{
		"workload_id": id, "workload_jwt": token, "target_node": node,
	})
}

func (c Client) askJSON(subject string, body map[string]any) ([]byte, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	return c.Ask(subject, data)
}

// Workload is what can be deployed.
type Workload struct {
	Name, Type, Description string
	Bucket, Key             string // where the artifact is
	Hash                    string // what the claims say of it
	Argv, Triggers          []string
	Environment             map[string]string
	Essential               bool
}

// DeployRequest makes the request for one node, whose curve key is xkey, as
// the command line of Nex 0.2.7 sends it.
func (c Client) DeployRequest(node, xkey string, w Workload) (map[string]any, error) {
	token, err := Sign(c.Issuer, Claims{IssuedAt: time.Now().Unix(), Subject: w.Name, Data: Data{Hash: w.Hash}})
	if err != nil {
		return nil, err
	}
	sealed, err := c.Seal(w.Environment, xkey)
	if err != nil {
		return nil, err
	}
	sender, err := c.Sender.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("read sender key: %w", err)
	}
	request := map[string]any{
		"description": w.Description, "type": w.Type, "location": Location("nats", w.Bucket, "/"+w.Key),
		"essential": w.Essential, "workload_jwt": token, "environment": sealed, "jsdomain": "",
		"sender_public_key": sender, "target_node": node,
	}
	if w.Argv != nil {
		request["argv"] = w.Argv
	}
	if w.Triggers != nil {
		request["trigger_subjects"] = w.Triggers
	}
	return request, nil
}

// Location is a URL as Go's url.URL comes out of encoding/json.
func Location(scheme, host, path string) map[string]any {
	return map[string]any{
		"Scheme": scheme, "Opaque": "", "User": nil, "Host": host, "Path": path, "RawPath": "", "OmitHost": false,
		"ForceQuery": false, "RawQuery": "", "Fragment": "", "RawFragment": "",
	}
}

// Seal encrypts an environment for the holder of a curve key.
func (c Client) Seal(environment map[string]string, xkey string) (string, error) {
	plain, err := json.Marshal(environment)
	if err != nil {
		return "", fmt.Errorf("encode environment: %w", err)
	}
	box, err := c.Sender.Seal(plain, xkey)
	if err != nil {
		return "", fmt.Errorf("seal environment: %w", err)
	}
	return base64.StdEncoding.EncodeToString(box), nil
}

// Claims is the payload of a generic nats-jwt of version 2. [Sign] sets the
// id, the issuer and the version.
type Claims struct {
	Expires   int64  `json:"exp,omitempty"`
	ID        string `json:"jti,omitempty"`
	IssuedAt  int64  `json:"iat,omitempty"`
	Issuer    string `json:"iss,omitempty"`
	NotBefore int64  `json:"nbf,omitempty"`
	Subject   string `json:"sub,omitempty"`
	Data      Data   `json:"nats"`
}

// Data is the free part of claims.
type Data struct {
	Hash    string `json:"hash,omitempty"`
	Version int    `json:"version"`
}

// header is that of every token.
const header = `{"typ":"JWT","alg":"ed25519-nkey"}`

// Sign makes a token. Its id covers all of the claims but their free part.
func Sign(issuer nkeys.KeyPair, c Claims) (string, error) {
	var err error
	if c.Issuer, err = issuer.PublicKey(); err != nil {
		return "", fmt.Errorf("read issuer key: %w", err)
	}
	c.Data.Version = 2
	standard, err := json.Marshal(struct {
		Claims
		Data *Data `json:"nats,omitempty"`
	}{Claims: c})
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	sum := sha512.Sum512_256(standard)
	c.ID = base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])
	payload, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	token := chunk([]byte(header)) + "." + chunk(payload)
	signature, err := issuer.Sign([]byte(token))
	if err != nil {
		return "", fmt.Errorf("sign claims: %w", err)
	}
	return token + "." + chunk(signature), nil
}

func chunk(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }
