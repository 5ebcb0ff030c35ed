package native

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"nex/internal/nextest/leaks"
)

// The first variable makes the test program a node that runs one service, which
// holds the named file open, and gets killed; the second one that has a service of
// nobody else.
const (
	lineVariable  = "NATIVE_TEST_LINE"
	aloneVariable = "NATIVE_TEST_ALONE"
)

func TestMain(m *testing.M) {
	if code, was := Shim(os.Args); was {
		os.Exit(code)
	}
	if line := os.Getenv(lineVariable); line != "" {
		os.Exit(node(line))
	}
	os.Exit(leaks.Run(m))
}

// node starts a service and waits to be killed.
func node(line string) int {
	dir, err := os.MkdirTemp(os.Getenv("TMPDIR"), "node")
	if err != nil {
		return 1
	}
	path := dir + "/service"
	text := "#!/bin/sh\nexec 3> " + line + "\necho up\nexec sleep 1000\n"
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		return 1
	}
	_, err = Start(Options{Path: path, Dir: dir, Alone: os.Getenv(aloneVariable) != "", Log: func(_ slog.Level, text string) { fmt.Println(text) }})
	if err != nil {
		return 1
	}
	select {}
}

// The kernel ends the service when the node cannot any more, also one that became
// what it is by a shim, on whatever thread of that.
func TestServiceDiesWithItsNode(t *testing.T) {
	t.Run("child", func(t *testing.T) { diesWithItsNode(t) })
	for n := range 12 {
		t.Run(fmt.Sprint("by a shim, ", n), func(t *testing.T) { diesWithItsNode(t, aloneVariable+"=yes") })
	}
}

func diesWithItsNode(t *testing.T, env ...string) {
	line, ended := lifeline(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), lineVariable+"="+line, "TMPDIR="+t.TempDir()), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up := make([]byte, 3)
	if n, err := io.ReadFull(out, up); err != nil || string(up[:n]) != "up\n" {
		t.Errorf("the node says %q, %v", up[:n], err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
	ended()
}
