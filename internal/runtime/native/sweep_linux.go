package native

import (
	"bytes"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sweepWait is the first time between two looks for what is left.
const sweepWait = time.Millisecond

// sweep kills what a service that has ended left: its group; if it has a cgroup
// what is in there; and if nobody else has children here, all of them with
// theirs. It does so until nothing is left, for as long as killTime.
func (p *Process) sweep() {
	began := time.Now()
	for wait := sweepWait; ; wait = min(2*wait, busyWait) {
		killGroup(p.main)
		left := p.leftovers()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended by now
		}
		if time.Since(began) > killTime {
			p.log(slog.LevelError, "processes of this service cannot be killed: "+strings.Join(strings.Fields(numbers(left)), ", "))
			return
		}
		<-time.After(wait)
	}
}

func numbers(pids []int) (list string) {
	for _, pid := range pids[:min(len(pids), 10)] {
		list += strconv.Itoa(pid) + " "
	}
	return list
}

// leftovers lists what is alive of the service besides its main process, and
// reaps what is dead.
func (p *Process) leftovers() (pids []int) {
	own := os.Getpid()
	found := map[int]bool{own: true, p.main.Pid: true}
	add := func(pid int) {
		if !found[pid] {
			found[pid] = true
			pids = append(pids, pid)
		}
	}
	for _, door := range p.doors {
		for _, pid := range inside(door) {
			if pid > 0 { // else it cannot be seen from here
				add(pid)
			}
		}
	}
	all := allProcesses()
	for _, q := range all {
		switch {
		case q.pid == p.main.Pid:
		case q.dead && q.parent == own && p.alone:
			bury(q.pid)
		case !q.dead && q.group == p.main.Pid:
			add(q.pid)
		}
	}
	if !p.alone {
		return pids
	}
	family := map[int]bool{own: true}
	for grown := true; grown; {
		grown = false
		for _, q := range all {
			if !q.dead && family[q.parent] && !family[q.pid] {
				family[q.pid], grown = true, true
				add(q.pid)
			}
		}
	}
	return pids
}

// inside lists the processes in a cgroup. It is opened again for that: with
// version 1 who reads on learns what was true when he began.
func inside(door *os.File) (pids []int) {
	data, err := os.ReadFile("/proc/self/fd/" + strconv.Itoa(int(door.Fd())))
	if err != nil {
		return nil // it is not to be read; /proc tells most of it
	}
	for word := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(word); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// process is what /proc tells of one.
type process struct {
	pid, parent, group int
	dead               bool
}

// allProcesses reads /proc/PID/stat: "pid (comm) state ppid pgrp …".
func allProcesses() (all []process) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1) // what could be read is all there is to know
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		data, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(f) < 3 {
			continue
		}
		q := process{pid: pid, dead: f[0] == "Z" || f[0] == "X"}
		q.parent, _ = strconv.Atoi(f[1]) // the kernel's own
		q.group, _ = strconv.Atoi(f[2])
		all = append(all, q)
	}
	return all
}
