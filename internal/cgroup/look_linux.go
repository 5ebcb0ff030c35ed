package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Look says which version [Open] would take, as far as can be told without
// changing anything. The error says why it is none.
func Look() (Kind, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Rlimits, err
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Rlimits, err
	}
	all := hierarchiesIn(string(mounts), string(groups))
	err2 := look2(all)
	if err2 == nil {
		return V2, nil
	}
	err1 := look1(all)
	if err1 == nil {
		return V1, nil
	}
	return Rlimits, fmt.Errorf("no cgroups: version 2: %w; version 1: %w", err2, err1)
}

func look2(all []hierarchy) error {
	i := slices.IndexFunc(all, func(h hierarchy) bool { return h.v2 })
	if i < 0 {
		return errors.New("it is not mounted")
	}
	have, err := os.ReadFile(filepath.Join(all[i].dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range version2.controllers {
		if !slices.Contains(strings.Fields(string(have)), c) {
			return fmt.Errorf("%s has no controller %s", all[i].dir, c)
		}
	}
	return mayWrite(all[i].dir)
}

func look1(all []hierarchy) error {
	for _, c := range version1.controllers {
		i := slices.IndexFunc(all, func(h hierarchy) bool { return slices.Contains(h.controllers, c) })
		if i < 0 {
			return fmt.Errorf("controller %s is not mounted", c)
		}
		if err := mayWrite(all[i].dir); err != nil {
			return err
		}
	}
	return nil
}

func mayWrite(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("%s is not for this user to change: %w", dir, err)
	}
	return nil
}
