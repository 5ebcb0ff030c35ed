package machine

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func sessionAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
}

func socketPairFDs() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

// awaitExit returns when a child has ended, without reaping it: its pid, and
// so its session's id, stays taken.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// killSession kills every process of a session but its leader. Killing goes
// round until nobody is found: a process may fork while we look.
func killSession(leader int) {
	for range 1000 {
		if !killSessionOnce(leader) {
			return
		}
	}
}

func killSessionOnce(leader int) (found bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == leader || !liveInSession(pid, leader) {
			continue
		}
		found = true
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by now
	}
	return found
}

// liveInSession reads /proc/PID/stat: "pid (comm) state ppid pgrp session …".
func liveInSession(pid, session int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 4 || fields[0] == "Z" || fields[0] == "X" {
		return false
	}
	return fields[3] == strconv.Itoa(session)
}

// sacrifice is how much rather the kernel kills an agent, or what it started,
// than its node when memory runs out: in thousandths of all memory.
const sacrifice = 500

// volunteer has the kernel kill a process before this one.
func volunteer(pid int) error {
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(own)))
	if err != nil {
		return err
	}
	score = min(score+sacrifice, 1000)
	return os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(score)), 0)
}
