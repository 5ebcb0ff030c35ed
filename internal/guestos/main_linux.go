package guestos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"nex/internal/confine"
)

const (
	cmdlinePath = "/proc/cmdline"
	// workDir is where the agent of a guest works.
	workDir = "/var/lib/nex"
	// syncTime bounds how long a disk that does not answer holds up the power-off.
	syncTime = 2 * time.Second
)

// Main runs agent as what this process is: process 1 of a guest, which makes the
// system first and powers off instead of returning; or any other, for which it
// does nothing. It must be called by the main function itself.
//
// When process 1 ends otherwise, as with a panic, the kernel panics: the node sets
// it to end the machine then.
func Main(agent func(context.Context, Agent) error) error {
	if os.Getpid() != 1 {
		s, err := read()
		if err != nil {
			return err
		}
		return agent(context.Background(), Agent{Guest: s.Guest})
	}
	if err := mount(proc); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /proc: %w", err)
	}
	s, err := read()
	if err == nil && !s.Guest {
		return agent(context.Background(), Agent{}) // such as in a container
	}
	if err == nil {
		err = confine.First(func() error { return s.first(agent) })
	} else {
		openConsole()
	}
	if err != nil {
		say("%v", err)
	}
	syncDisks()
	return PowerOff()
}

// read reads the kernel command line. Where there is none this is no guest.
func read() (Settings, error) {
	line, err := os.ReadFile(cmdlinePath)
	if err != nil {
		return Settings{}, nil
	}
	return parseOwn(string(line))
}

// parseOwn is Parse for a guest: what others have on the command line is not for us.
func parseOwn(line string) (Settings, error) {
	s, err := Parse(line)
	if err != nil && !marked(line) {
		return Settings{}, nil
	}
	return s, err
}

// first is an agent's life as process 1.
func (s Settings) first(agent func(context.Context, Agent) error) error {
	if err := mountAll(); err != nil {
		openConsole()
		return err
	}
	openConsole()
	if err := s.setUp(); err != nil {
		return err
	}
	// Ctrl-Alt-Del, which is how a VMM asks for an end, becomes a signal.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		say("Ctrl-Alt-Del ends this machine at once: %v", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT)
	defer stop()
	return agent(ctx, Agent{Guest: true, First: true})
}

// Enter makes the directory where the agent of a guest works, and works there from
// then on.
func Enter() (dir string, err error) {
	if err := os.MkdirAll(workDir, 0o700); err != nil {
		return "", fmt.Errorf("make working directory: %w", err)
	}
	if err := os.Chdir(workDir); err != nil {
		return "", fmt.Errorf("enter working directory: %w", err)
	}
	return workDir, nil
}

// syncDisks returns when the disks have what was written, or do not answer.
func syncDisks() {
	done := make(chan struct{})
	go func() {
		unix.Sync()
		close(done)
	}()
	t := time.NewTimer(syncTime)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// PowerOff ends the machine at once. Its VMM takes a restart for the end, and a
// microVM has no other way to be switched off. It returns only if it cannot.
func PowerOff() error {
	return fmt.Errorf("power off: %w", unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}

// say tells something on the console.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "nex-agent: "+format+"\n", args...)
}
