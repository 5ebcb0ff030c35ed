package nex

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// Claims is what a workload JWT says: a generic claim of nats-jwt v2 whose
// subject is the workload's name and whose issuer is the entity that may stop
// it again.
type Claims struct {
	ID        string    // jti; covers the standard claims only
	Issuer    string    // public nkey of the signer
	Name      string    // the workload's name
	Hash      string    // lowercase hex SHA-256 of the artifact, or a placeholder
	IssuedAt  time.Time // whole seconds
	Expires   time.Time // zero: never
	NotBefore time.Time // zero: at once

	// Stops is the id of the one workload a stop claim ends. Claims of Nex
	// 0.2.7 do not have it and end any workload of their issuer and name.
	Stops string
}

// Keys of the claim's free part.
const (
	hashClaim  = "hash"
	stopsClaim = "stops"
)

// noDigest marks a deploy claim that binds no artifact.
const noDigest = "unsigned"

// NamePattern is the form of a workload's name.
const NamePattern = "^[a-zA-Z0-9_-]+$"

var validName = regexp.MustCompile(NamePattern)

// ValidName reports whether s can be a workload's name.
func ValidName(s string) bool { return validName.MatchString(s) }

// DecodeClaims reads a workload JWT and checks its signature, not its times
// or its name.
func DecodeClaims(token string) (Claims, error) {
	c, err := jwt.DecodeGeneric(token)
	if err != nil {
		return Claims{}, fmt.Errorf("could not decode workload JWT: %w", err)
	}
	text := func(key string) string { s, _ := c.Data[key].(string); return s }
	return Claims{
		ID: c.ID, Issuer: c.Issuer, Name: c.Subject,
		Hash: text(hashClaim), Stops: text(stopsClaim),
		IssuedAt: unix(c.IssuedAt), Expires: unix(c.Expires), NotBefore: unix(c.NotBefore),
	}, nil
}

// ages is more seconds than matter, and not so many that [time.Time] wraps.
const ages = 1 << 40

func unix(s int64) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(max(-ages, min(s, ages)), 0)
}

// ValidAt reports whether now is inside the claim's times.
func (c Claims) ValidAt(now time.Time) bool {
	return (c.Expires.IsZero() || now.Before(c.Expires)) && !now.Before(c.NotBefore)
}

var digest = regexp.MustCompile("^[0-9a-f]{64}$")

// Digest returns the artifact's SHA-256 in lowercase hex when the claim binds
// it, and "" when it does not: Nex 0.2.7 sends a placeholder.
func (c Claims) Digest() string {
	if digest.MatchString(c.Hash) {
		return c.Hash
	}
	return ""
}

// ObjectDigest turns the digest of an object in a JetStream Object Store,
// "SHA-256=" and base64, into lowercase hex; anything else gives "".
func ObjectDigest(d string) string {
	raw, ok := strings.CutPrefix(d, "SHA-256=")
	if !ok {
		return ""
	}
	sum, err := base64.URLEncoding.DecodeString(raw)
	if err != nil {
		return ""
	}
	return hex.EncodeToString(sum)
}

// Keys are what a client signs and seals with.
type Keys struct {
	Issuer nkeys.KeyPair // signs; by convention an account key
	Sender nkeys.KeyPair // seals environments; a curve key
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
	FunctionTimeout time.Duration // 0: the node's default
	SourceName      string        // file name shown in error texts, "" for the object's key
}

// Deploy signs w and seals its environment for one node, known by its id and
// its public curve key.
func (k Keys) Deploy(w Workload, node, xkey string) (DeployRequest, error) {
	if !ValidName(w.Name) {
		return DeployRequest{}, Errorf(Invalid, "workload name %q does not match %s", w.Name, NamePattern)
	}
	env, err := SealEnvironment(w.Environment, k.Sender, xkey)
	if err != nil {
		return DeployRequest{}, err
	}
	token, err := k.sign(w.Name, map[string]any{hashClaim: cmp.Or(w.SHA256, noDigest)})
	if err != nil {
		return DeployRequest{}, err
	}
	sender, err := k.Sender.PublicKey()
	if err != nil {
		return DeployRequest{}, fmt.Errorf("read the sender's public key: %w", err)
	}
	return DeployRequest{
		Type: w.Type, Location: w.Location, Description: w.Description, Argv: w.Argv,
		Essential: w.Essential, WorkloadJWT: token, Environment: env, SenderPublicKey: sender,
		JSDomain: w.JSDomain, TargetNode: node, TriggerSubjects: w.TriggerSubjects,
		FunctionTimeoutMS: int(w.FunctionTimeout.Milliseconds()), SourceName: w.SourceName,
	}, nil
}

// Stop signs a request that ends the workload with this name and id.
func (k Keys) Stop(name, id, node string) (StopRequest, error) {
	token, err := k.sign(name, map[string]any{stopsClaim: id})
	if err != nil {
		return StopRequest{}, err
	}
	return StopRequest{WorkloadID: id, WorkloadJWT: token, TargetNode: node}, nil
}

func (k Keys) sign(name string, data map[string]any) (string, error) {
	c := jwt.NewGenericClaims(name)
	for key, v := range data {
		c.Data[key] = v
	}
	token, err := c.Encode(k.Issuer)
	if err != nil {
		return "", fmt.Errorf("sign workload claims: %w", err)
	}
	return token, nil
}

// SealEnvironment encrypts env so that only the node with the given public
// curve key can read it. The result is base64 of a nkeys "xkv1" box.
func SealEnvironment(env map[string]string, sender nkeys.KeyPair, xkey string) (string, error) {
	if env == nil {
		env = map[string]string{}
	}
	plain, err := json.Marshal(env)
	if err != nil {
		return "", fmt.Errorf("encode environment: %w", err)
	}
	if !validXkey(xkey) {
		return "", Errorf(Invalid, "seal environment: the node's xkey is no public curve key")
	}
	sealed, err := sender.Seal(plain, xkey)
	if err != nil {
		return "", fmt.Errorf("seal environment for %s: %w", xkey, err)
	}
	return base64.StdEncoding.EncodeToString(sealed), nil
}

// OpenEnvironment reverses [SealEnvironment] with the node's curve key and
// the sender's public one.
func OpenEnvironment(sealed string, node nkeys.KeyPair, sender string) (map[string]string, error) {
	box, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	if !validXkey(sender) {
		return nil, errors.New("the sender's key is no public curve key")
	}
	plain, err := node.Open(box, sender)
	if err != nil {
		return nil, err
	}
	var env map[string]string
	if err := json.Unmarshal(plain, &env); err != nil {
		return nil, errors.New("the sealed text is not a JSON object of strings") // never quote the secret itself
	}
	return env, nil
}

// validXkey guards nkeys, which panics on keys that are too long.
func validXkey(s string) bool {
	const length = 56
	return len(s) == length && nkeys.IsValidPublicCurveKey(s)
}
