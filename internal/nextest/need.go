package nextest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// NATSCLI returns the path of the stock nats CLI, which make test builds and
// names in NEX_TEST_NATS_CLI. Without it the test is skipped, in CI it fails.
func NATSCLI(t testing.TB) string {
	t.Helper()
	path := os.Getenv("NEX_TEST_NATS_CLI")
	if path == "" {
		missing(t, "NEX_TEST_NATS_CLI names no nats CLI; make test builds one")
	}
	return path
}

// Program returns the path of a program that make test installs where it can.
// Without it the test is skipped, in CI it fails.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "there is no "+name+": "+err.Error())
	}
	return path
}

// CNIPlugins returns the directory of the CNI plugins ptp and host-local, which
// make test builds and names in NEX_TEST_CNI_PLUGINS. Without them the test is
// skipped, in CI it fails.
func CNIPlugins(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("NEX_TEST_CNI_PLUGINS")
	for _, name := range []string{"ptp", "host-local"} {
		if _, err := os.Stat(filepath.Join(dir, name)); dir == "" || err != nil {
			missing(t, "NEX_TEST_CNI_PLUGINS names no directory with the CNI plugin "+name+"; make test builds it")
		}
	}
	return dir
}

// Root skips a test that only root can run, or fails it in CI.
func Root(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "this takes root: network namespaces, interfaces and a firewall")
	}
}

// missing skips a test for want of something, or fails it where CI should
// have provided it.
func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// Debian returns an archive of a root directory, which make test makes of packages of Debian and names by its directory,
// NEX_TEST_BASES: "openrc" or "systemd". Without it the test is
// skipped, in CI it fails.
func Debian(t testing.TB, kind string) string {
	t.Helper()
	path := filepath.Join(os.Getenv("NEX_TEST_BASES"), kind+".tar")
	if _, err := os.Stat(path); err != nil {
		missing(t, "NEX_TEST_BASES names no directory with "+kind+".tar; make test makes it")
	}
	return path
}
