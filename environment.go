package nex

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nkeys"
)

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
	box, err := base64.StdEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return nil, err
	}
	if strings.ContainsAny(sealed, "\r\n") { // which the decoder skips: one box has one text
		return nil, errors.New("illegal line break in base64 data")
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
