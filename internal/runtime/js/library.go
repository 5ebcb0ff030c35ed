package js

import (
	"embed"
	"fmt"
	"strings"
)

// Part is a script with globals that most functions have no need of. The
// prelude loads it when one of them is used for the first time; its value is a
// function of (host, tools).
type Part struct {
	Name string // what host.load knows it by
	File string // the file name of its frames, which begins with PreludeName
	Code string
}

//go:embed library/*.js
var library embed.FS

// Library returns all parts.
func Library() ([]Part, error) {
	files, err := library.ReadDir("library")
	if err != nil {
		return nil, fmt.Errorf("list the library: %w", err)
	}
	parts := make([]Part, len(files))
	for i, f := range files {
		code, err := library.ReadFile("library/" + f.Name())
		if err != nil {
			return nil, fmt.Errorf("read the library: %w", err)
		}
		name := strings.TrimSuffix(f.Name(), ".js")
		parts[i] = Part{Name: name, File: PreludeName + "/" + name, Code: string(code)}
	}
	return parts, nil
}
