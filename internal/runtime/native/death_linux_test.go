package native

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"nex/internal/nextest/leaks"
)

// lineVariable makes the test program a node that runs one service, which
// holds the named file open, and gets killed.
const lineVariable = "NATIVE_TEST_LINE"

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
	_, err = Start(Options{Path: path, Dir: dir, Log: func(_ slog.Level, text string) { fmt.Println(text) }})
	if err != nil {
		return 1
	}
	select {}
}

// The kernel ends the service when the node cannot any more.
func TestServiceDiesWithItsNode(t *testing.T) {
	line, ended := lifeline(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), lineVariable+"="+line, "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	up := make([]byte, 3)
	if n, err := out.Read(up); err != nil || string(up[:n]) != "up\n" {
		t.Errorf("the node says %q, %v", up[:n], err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
	ended()
}
