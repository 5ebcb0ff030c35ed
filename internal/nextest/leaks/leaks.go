// Package leaks runs the tests of a package and fails them for what they leave
// behind: goroutines, temporary files, and on Linux file descriptors, processes,
// mounts and control groups. It is test support, and stands on nothing of this module, so that
// every package can use it. There is one [Run] in a process, from its TestMain.
package leaks

import (
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.uber.org/goleak"
)

const (
	// patience is how long what tests left may take to go: the kernel and the
	// parents of orphans need a moment.
	patience = 5 * time.Second
	// look is the time between looks.
	look = 50 * time.Millisecond
	// atMost is how many leaks of a kind are told.
	atMost = 20
)

// Tests are those of a package: a *[testing.M].
type Tests interface{ Run() int }

// Run runs tests and returns the exit code, which is not 0 either when they left
// something. Goroutines that are to be ignored are named by options. The tests
// have a directory for temporary files of their own, which is removed in the end.
func Run(tests Tests, ignore ...goleak.Option) int {
	return run(tests, os.Stderr, ignore...)
}

func run(tests Tests, out io.Writer, ignore ...goleak.Option) (code int) {
	dir, err := tempDir()
	if err != nil {
		fmt.Fprintln(out, "leaks:", err)
		return 1
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(out, "leaks:", err)
			code = 1
		}
	}()
	before, err := takeStock()
	if err != nil {
		fmt.Fprintln(out, "leaks:", err)
		return 1
	}
	// What goes wrong leaves things, and the fuzzer of package testing ends as it likes.
	if code := tests.Run(); code != 0 || fuzzing() {
		return code
	}
	// A JetStream context that has published leaves this behind when its
	// connection closes first.
	ignore = append(ignore, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
	if err := goleak.Find(ignore...); err != nil {
		fmt.Fprintln(out, "leaks:", err)
		code = 1
	}
	for _, l := range settle(before, dir) {
		fmt.Fprintln(out, "leaks: the tests left", l)
		code = 1
	}
	return code
}

// tempDir makes the directory of temporary files.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "nt") // short, since sockets are made in it
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil { // as /tmp: some tests are of several users
		return "", err
	}
	variable := "TMPDIR"
	if runtime.GOOS == "windows" {
		variable = "TMP"
	}
	return dir, os.Setenv(variable, dir)
}

func fuzzing() bool {
	for _, name := range []string{"test.fuzz", "test.fuzzworker"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != f.DefValue {
			return true
		}
	}
	return false
}

// settle returns what is left when it has had time to go.
func settle(before stock, dir string) []string {
	for end := time.Now().Add(patience); ; {
		left := append(files(dir), before.left(dir)...)
		if len(left) == 0 || time.Now().After(end) {
			return left
		}
		<-time.After(look)
	}
}

// files lists temporary files.
func files(dir string) (left []string) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return nil // it has just gone
		}
		if left = append(left, "the temporary file "+path); len(left) == atMost {
			return fs.SkipAll
		}
		return nil
	})
	return left
}
