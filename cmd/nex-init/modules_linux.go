package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// moduleList names the kernel's modules in the order in which to load them: a
// line each, "required" or "optional" and the path.
const moduleList = "/modules/list"

// loadModules loads what the image brings along for its kernel.
func loadModules() error {
	text, err := os.ReadFile(moduleList)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel that has everything built in
	}
	if err != nil {
		return fmt.Errorf("read the list of modules: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		need, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path == "" {
			continue
		}
		if err := load(path); err != nil {
			if need == "required" {
				return fmt.Errorf("load kernel module %s: %w", path, err)
			}
			say(fmt.Sprintf("go on without kernel module %s: %v", path, err))
		}
	}
	return nil
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // was only read
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EEXIST) { // loaded, or built in
		return nil
	}
	return err
}
