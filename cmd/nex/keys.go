package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"

	"nex"
	"nex/internal/keyfile"
)

// devKeys returns the developer's own keys from ~/.nex, made at first use.
func (c *cli) devKeys() (nex.Keys, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nex.Keys{}, fmt.Errorf("find the home directory for keys: %w", err)
	}
	issuer, err := c.devKey(filepath.Join(home, ".nex", "issuer.nk"), "issuer account key", nkeys.CreateAccount)
	if err != nil {
		return nex.Keys{}, err
	}
	sender, err := c.devKey(filepath.Join(home, ".nex", "publisher.xk"), "publisher xkey", nkeys.CreateCurveKeys)
	return nex.Keys{Issuer: issuer, Sender: sender}, err
}

func (c *cli) devKey(path, what string, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, error) {
	kp, created, err := keyfile.Load(path, create)
	if err != nil {
		return nil, err
	}
	if c.json {
		return kp, nil
	}
	if created {
		fmt.Fprintf(c.stdout, "Wrote new %s: %s\n", what, path)
	} else {
		fmt.Fprintf(c.stdout, "Reusing existing %s: %s\n", what, path)
	}
	return kp, nil
}

// readKey reads a key the user names; it must be there.
func readKey(path string) (nkeys.KeyPair, error) {
	kp, _, err := keyfile.Load(path, func() (nkeys.KeyPair, error) {
		return nil, fmt.Errorf("no key in %s", path)
	})
	return kp, err
}
