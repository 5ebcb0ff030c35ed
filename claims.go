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
)

// Purpose is what claims were signed for.
type Purpose string

// The purposes of claims. Those of Nex 0.2.7 say none.
const (
	ForDeploy   Purpose = "deploy"
	ForStop     Purpose = "stop"
	ForLameDuck Purpose = "lameduck"
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

	// Binding says what the claims are good for; it is zero in claims of Nex
	// 0.2.7, which are good for anything.
	Binding
}

// Binding is the part of claims that ties them to one request to one node.
type Binding struct {
	Purpose   Purpose
	Nonce     string // makes every claim another one
	Namespace string
	Node      string // id of the node it is for
	Workload  string // id of the workload that is to be stopped
	Request   string // [DeployRequest.Fingerprint] of what is to be deployed
}

// Keys of the claim's free part.
const (
	hashClaim      = "hash"
	purposeClaim   = "use"
	nonceClaim     = "nonce"
	namespaceClaim = "namespace"
	nodeClaim      = "node"
	workloadClaim  = "workload"
	requestClaim   = "request"
	expiresClaim   = "expires" // as exp, for our nodes alone
)

// noDigest marks a deploy claim that binds no artifact.
const noDigest = "unsigned"

// NamePattern is the form of a workload's name.
const NamePattern = "^[a-zA-Z0-9_-]+$"

var validName = regexp.MustCompile(NamePattern)

// ValidName reports whether s can be a workload's name. Besides the pattern it
// has at most 255 bytes.
func ValidName(s string) bool { return len(s) <= maxToken && validName.MatchString(s) }

// DecodeClaims reads a workload JWT and checks its signature, not its times
// or its name. No two texts have the same signature: who has seen one cannot
// make another of it.
func DecodeClaims(token string) (Claims, error) {
	err := checkForm(token)
	var c *jwt.GenericClaims
	if err == nil {
		c, err = jwt.DecodeGeneric(token)
	}
	if err != nil {
		return Claims{}, fmt.Errorf("could not decode workload JWT: %w", err)
	}
	text := func(key string) string { s, _ := c.Data[key].(string); return s }
	if kind := text("type"); kind != "" { // of NATS itself, as a user's, signed by an account for other ends
		return Claims{}, fmt.Errorf("could not decode workload JWT: it is a JWT of type %.32q", kind)
	}
	claims := Claims{
		ID: c.ID, Issuer: c.Issuer, Name: c.Subject, Hash: text(hashClaim),
		IssuedAt: unix(c.IssuedAt), Expires: unix(c.Expires), NotBefore: unix(c.NotBefore),
		Binding: Binding{
			Purpose: Purpose(text(purposeClaim)), Nonce: text(nonceClaim), Namespace: text(namespaceClaim),
			Node: text(nodeClaim), Workload: text(workloadClaim), Request: text(requestClaim),
		},
	}
	if expires, ok := c.Data[expiresClaim].(float64); ok && claims.Expires.IsZero() {
		claims.Expires = unix(int64(max(-ages, min(expires, ages))))
	}
	return claims, nil
}

// checkForm refuses what can be changed in a JWT without its signer: the
// header, which the first version does not sign, and how the signature is
// written, as the library takes base64 with line breaks and spare bits. What
// is no JWT at all is left to the library, which says so.
func checkForm(token string) error {
	chunks := strings.Split(token, ".")
	var h jwt.Header
	head, err := base64.RawURLEncoding.DecodeString(chunks[0])
	if err != nil || json.Unmarshal(head, &h) != nil {
		return nil
	}
	if strings.EqualFold(h.Algorithm, jwt.AlgorithmNkeyOld) {
		return errors.New("claims of version 1 do not sign their header: sign with algorithm " + jwt.AlgorithmNkey)
	}
	last := chunks[len(chunks)-1]
	if sig, err := base64.RawURLEncoding.DecodeString(last); err == nil && base64.RawURLEncoding.EncodeToString(sig) != last {
		return errors.New("the signature is not written as its signer wrote it")
	}
	return nil
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

// Bound reports whether the claims say what they are for. Those of Nex 0.2.7
// do not.
func (c Claims) Bound() bool { return c.Purpose != "" }

// Allow reports why bound claims do not allow a request of one purpose to one
// node for one namespace, or nil. Claims that are not bound allow any.
func (c Claims) Allow(p Purpose, namespace, node string) error {
	refuse := func(format string, args ...any) error {
		return Errorf(Unauthorized, "the claims are those of "+format, args...)
	}
	switch {
	case !c.Bound():
		return nil
	case c.Purpose != p:
		return refuse("a %s request", c.Purpose)
	case c.Node != node:
		return refuse("a request to another node (%.56s)", c.Node)
	case c.Namespace != namespace:
		return refuse("a request for namespace %.64q", c.Namespace)
	case c.Nonce == "" || c.Expires.IsZero():
		return Errorf(Unauthorized, "the claims lack a nonce or an expiry")
	}
	return nil
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

// data is the free part of the JWT for claims.
func (c Claims) data() map[string]any {
	data := map[string]any{}
	for key, s := range map[string]string{
		hashClaim: c.Hash, purposeClaim: string(c.Purpose), nonceClaim: c.Nonce, namespaceClaim: c.Namespace,
		nodeClaim: c.Node, workloadClaim: c.Workload, requestClaim: c.Request,
	} {
		if s != "" {
			data[key] = s
		}
	}
	return data
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

// hashOf is the hash claim for an artifact's digest, which may be unknown.
func hashOf(sha256 string) string { return cmp.Or(sha256, noDigest) }
