package microvm

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// FindProgram returns the absolute path of the first executable of a name in
// directories, "" if there is none.
func FindProgram(name string, dirs []string) string {
	for _, dir := range dirs {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if path, err = exec.LookPath(path); err == nil {
			return path
		}
	}
	return ""
}

// versionTime bounds how long a program may take to say its version, and after that
// those that it started may hold its output for a second.
const versionTime = 5 * time.Second

// AskVersion returns what a program prints when it is asked for its version. Errors
// name the program.
func AskVersion(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "--version")
	cmd.WaitDelay = time.Second
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s does not say its version: %w", program, err)
	}
	return string(output), nil
}
