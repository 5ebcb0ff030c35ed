// Rogue is a service that behaves badly, in the way its first argument names.
package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}
	switch os.Args[1] {
	case "sleep":
		sleep()
	case "exit": // at once, or after so many milliseconds
		if len(os.Args) > 3 {
			ms, _ := strconv.Atoi(os.Args[3])
			time.Sleep(time.Duration(ms) * time.Millisecond)
		}
		code, _ := strconv.Atoi(os.Args[2])
		os.Exit(code)
	case "forks": // children, and children of those
		start(false, "grandparent")
		start(false, "sleep")
		fmt.Println("ready")
		sleep()
	case "grandparent":
		start(false, "sleep")
		sleep()
	case "daemon": // a process that leaves group, session and parent
		_ = start(true, "middle").Wait()
		fmt.Println("ready")
		if len(os.Args) > 2 { // and is left
			return
		}
		sleep()
	case "middle":
		start(true, "stubborn")
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		fmt.Println("ready")
		sleep()
	case "flood":
		lines := bytes.Repeat([]byte("a line of sixty-four bytes is what this is, with its line feed.\n"), 1024)
		for {
			if _, err := os.Stdout.Write(lines); err != nil {
				return
			}
		}
	case "hog":
		fmt.Println("ready")
		for all := [][]byte{}; ; {
			all = append(all, bytes.Repeat([]byte{1}, 1<<20))
		}
	case "files":
		var all []*os.File
		for {
			f, err := os.Open(os.DevNull)
			if err != nil {
				fmt.Println("opened", len(all), err)
				sleep()
			}
			all = append(all, f)
		}
	case "processes": // as many as there may be, and more
		for n := 0; ; n++ {
			if tryStart(false, "sleep") == nil {
				fmt.Println("refused")
				sleep()
			}
		}
	case "bomb": // each begins two that leave it
		tryStart(true, "bomb")
		tryStart(true, "bomb")
		sleep()
	case "disk":
		fmt.Println("ready")
		for n := 0; ; n++ {
			if os.WriteFile(fmt.Sprintf("file-%d", n), make([]byte, 1<<20), 0o600) != nil {
				sleep()
			}
		}
	case "bigfile":
		f, err := os.Create("file")
		for err == nil {
			_, err = f.Write(make([]byte, 1<<20))
		}
		fmt.Println(err)
		sleep()
	case "busy":
		fmt.Println("ready")
		for {
		}
	case "descriptors":
		// Files that Go opens for itself are not in a program of another language.
		list, _ := os.ReadDir("/proc/self/fd")
		names := []string{}
		for _, f := range list {
			to, err := os.Readlink("/proc/self/fd/" + f.Name())
			if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(filepath.Base(to), "cpu.") {
				names = append(names, f.Name())
			}
		}
		fmt.Println(names)
	}
}

func sleep() { time.Sleep(time.Hour) }

func start(session bool, mode string) *exec.Cmd {
	cmd := tryStart(session, mode)
	if cmd == nil {
		os.Exit(1)
	}
	return cmd
}

// tryStart starts this program again, in a session of its own or not.
func tryStart(session bool, mode string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", mode)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		return nil
	}
	return cmd
}
