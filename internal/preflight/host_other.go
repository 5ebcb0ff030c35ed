//go:build !linux

package preflight

import (
	"context"
	"errors"
	"math"
	"os"
	"runtime"
)

var errNotLinux = errors.New("this is not Linux")

func kvmUsable() error { return errNotLinux }

func (p *probe) jailShows(string) error { return errNotLinux }

func systemName() string { return runtime.GOOS }

func elsewhere() Finding { return missing(errNotLinux.Error(), otherSandbox) }

func (p *probe) virtualization(context.Context) Finding { return elsewhere() }
func (p *probe) privileges(context.Context) Finding     { return elsewhere() }
func (p *probe) nftables(context.Context) Finding       { return elsewhere() }
func (p *probe) forwarding(context.Context) Finding     { return elsewhere() }

func (p *probe) cgroups(context.Context) Finding {
	return doubtful(errNotLinux.Error(), "services that ask for cpus, memory_mib or pids are refused")
}

func (p *probe) confine(context.Context, string, string) ([]string, error) { return nil, errNotLinux }

func freeBytes(string) (uint64, error) { return 0, errNotLinux }

// fileLimit is that of systems that need none to be raised.
func fileLimit() (uint64, error) { return math.MaxInt32, nil }

func clockState() string { return "" }

// writable makes a file to see whether it can be made, and removes it.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, "nex-preflight-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}
