// Command guest is a service for tests: it does what its first argument says.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch what := os.Args[1]; what {
	case "escape":
		escape()
	case "capabilities":
		fmt.Println(held())
	case "family":
		family()
	case "orphans":
		orphans()
	case "host":
		host()
	case "breed":
		breed()
	case "brief":
		_, _ = os.Stdin.Read(make([]byte, 1)) // until its parent ends
	case "dial":
		c, err := net.Dial("tcp", os.Args[2])
		if err == nil {
			_ = c.Close()
		}
		fmt.Println("dial:", err)
		forever()
	case "lock":
		if err := errors.Join(os.MkdirAll("a/b/c", 0o700), os.Chmod("a/b/c", 0), os.Chmod("a/b", 0), os.Chmod("a", 0)); err != nil {
			panic(err)
		}
		fmt.Println("locked")
		forever()
	case "panic": // of the kernel
		fmt.Println("panic:", os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0))
		forever()
	case "read":
		_, err := os.ReadFile(os.Args[2])
		fmt.Println("read:", err)
		forever()
	case "leave":
		fmt.Println("leaving")
		os.Exit(3)
	case "wait":
		forever()
	default:
		fmt.Println("unknown", what)
		os.Exit(2)
	}
}

// family starts processes in sessions of their own, which have children.
func family() {
	for range 2 {
		start("child", true)
	}
	fmt.Println("started")
	forever()
}

func start(what string, session bool) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		fmt.Println(what, err)
		os.Exit(2)
	}
	return cmd
}

// orphans has processes end whose parents ended before, and says how many of
// them are not buried in the end.
func orphans() {
	for range 20 {
		if out, err := exec.Command(os.Args[0], "breed").CombinedOutput(); err != nil {
			fmt.Println("breed:", err, string(out))
		}
	}
	left := zombies()
	for range 500 {
		if left == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
		left = zombies()
	}
	fmt.Println("zombies:", left)
	forever()
}

func breed() {
	cmd := exec.Command(os.Args[0], "brief")
	if _, err := cmd.StdinPipe(); err != nil {
		panic(err)
	}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
}

func zombies() (n int) {
	list, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range list {
		if stat, err := os.ReadFile(path); err == nil && strings.Contains(string(stat), ") Z ") {
			n++
		}
	}
	return n
}

// held says whether this process has any capability, or is anybody's root.
func held() string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err.Error()
	}
	for _, line := range strings.Split(string(status), "\n") {
		if key, value, _ := strings.Cut(line, ":"); strings.HasPrefix(key, "Cap") && strings.Trim(value, "\t0") != "" {
			return line
		}
	}
	if os.Geteuid() == 0 || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		return "uid 0, or new privileges"
	}
	return "none"
}

// host asks a host service, over the socket.
func host() {
	client := http.Client{Transport: &http.Transport{Dial: func(string, string) (net.Conn, error) {
		return net.Dial("unix", os.Getenv("NEX_HOST_SERVICES"))
	}}}
	r, err := client.Get("http://nex/v1/kv")
	if err != nil {
		fmt.Println("host services:", err)
		os.Exit(1)
	}
	body, err := io.ReadAll(r.Body)
	fmt.Println("host services:", r.StatusCode, string(body), err)
	forever()
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}
