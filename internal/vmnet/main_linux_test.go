package vmnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"nex/internal/vmnet/forward"
	"nex/internal/vmnet/tap"
)

// insideVariable is set in the process that runs the tests.
const insideVariable = "NEX_TEST_INSIDE"

// TestMain is the tap plugin when it is called as such. As root it runs the tests
// in a network namespace that stands for a host, with mounts of its own, so that the
// machine's network is never touched.
func TestMain(m *testing.M) {
	if tap.Called(os.Args[0], os.Getenv("CNI_COMMAND")) {
		os.Exit(tap.Run(os.Stdout))
	}
	if address, ok := forward.Called(os.Args); ok {
		if err := forward.Run(os.Stdin, os.Stdout, address); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if text := os.Getenv(doomedVariable); text != "" {
		if err := live(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	switch {
	case os.Getenv(insideVariable) != "":
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "a host for the tests:", err)
			os.Exit(1)
		}
	case os.Getuid() == 0:
		os.Exit(inside())
	}
	os.Exit(m.Run())
}

// inside runs this program again, in namespaces of its own.
func inside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVariable+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "namespaces for the tests:", err)
		return 1
	}
	return 0
}

// furnish makes a host of the namespaces this process is in.
func furnish() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, ""); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
