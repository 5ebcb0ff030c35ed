//go:build !linux

package cgroup

import "errors"

// Look tells that there are no groups here.
func Look() (Kind, error) { return Rlimits, errors.New("this operating system has no cgroups") }
