package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long the whole of it may take, under software emulation too:
// a machine that cannot boot ends instead of waiting for ever.
const patience = 60 * time.Second

// Where things are while the initramfs is the root.
const (
	lower = "/lower" // the image, read-only
	upper = "/upper" // the machine's own disk
	root  = "/root"  // both of them, as one
)

// The programs that an image may be for: its own init if that starts the agent, which it does if the agent is
// a service of OpenRC or of systemd there, and otherwise the agent.
const ownInit, agent = "/sbin/init", "/usr/local/bin/agent"

// services are the files of the agent's service.
var services = []string{"/etc/init.d/agent", "/etc/systemd/system/nex-agent.service"}

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "nex-init: only the first process of a machine runs this")
		os.Exit(1)
	}
	time.AfterFunc(patience, func() { end(fmt.Errorf("no root file system after %s", patience)) })
	end(boot())
}

// boot does not return unless it fails.
func boot() error {
	if err := kernelMounts(); err != nil {
		return err
	}
	options, err := commandLine()
	if err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	if err := assemble(); err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return err
	}
	program, err := choose(options["nex.init"])
	if err != nil {
		return err
	}
	openConsole()
	environment := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=linux"}
	return fmt.Errorf("start %s: %w", program, unix.Exec(program, []string{program}, environment))
}

// commandLine returns what the kernel was told, as names and values.
func commandLine() (map[string]string, error) {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, fmt.Errorf("read the kernel's command line: %w", err)
	}
	options := map[string]string{}
	for _, word := range strings.Fields(string(text)) {
		name, value, _ := strings.Cut(word, "=")
		options[name] = value
	}
	return options, nil
}

// choose returns the program to become: the one that the command line names, or
// the one that the image is for.
func choose(named string) (string, error) {
	candidates := []string{agent, ownInit}
	if slices.ContainsFunc(services, there) {
		candidates = []string{ownInit, agent}
	}
	if named != "" {
		candidates = []string{named}
	}
	for _, program := range candidates {
		if unix.Access(program, unix.X_OK) == nil {
			return program, nil
		}
	}
	return "", fmt.Errorf("the root file system has no program %s", strings.Join(candidates, " or "))
}

// there reports whether there is a file.
func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// end says why the machine ends, and ends it. VMMs take a restart for the end;
// those which know of power are told that way where a restart does nothing.
func end(reason error) {
	say(reason.Error())
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // returns only where it did nothing
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(1) // the kernel panics, and restarts as it was told
}

// say prints a line on the console, or leaves it to the kernel where there is
// none yet.
func say(text string) {
	line := "nex-init: " + text + "\n"
	for _, path := range []string{"/dev/console", "/dev/kmsg"} {
		f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		_, err = f.WriteString(line)
		_ = f.Close() // nobody is left to be told
		if err == nil {
			return
		}
	}
}

// openConsole makes the console the standard files of what comes next. The
// kernel did so only if its console needed no module.
func openConsole() {
	for _, path := range []string{"/dev/console", "/dev/null"} {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		for standard := range 3 {
			_ = unix.Dup3(fd, standard, 0) // fails for fd itself, which then stays as it is
		}
		if fd < 3 {
			_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0) // of a file that is open
		}
		return
	}
}
