package image

import (
	"embed"
	"errors"
)

//go:embed all:initbin
var initbin embed.FS

// Init returns the first program of guests that this build of nex carries.
func Init() ([]byte, error) {
	data, err := initbin.ReadFile("initbin/nex-init")
	if err != nil {
		return nil, errors.New("this build of nex has no guest init: build it with make build, or name one with --init")
	}
	return data, nil
}
