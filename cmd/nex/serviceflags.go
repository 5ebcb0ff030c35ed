package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/choria-io/fisk"

	"nex"
)

// addServiceFlags adds the settings of services.
func addServiceFlags(cmd *fisk.CmdClause, s *nex.Settings) {
	cmd.Flag("restart", "When a service is started again: never, on-failure, always (what the node says if not given)").PlaceHolder("POLICY").SetValue((*restartPolicy)(&s.Restart.Policy))
	cmd.Flag("restart_max_attempts", "Restarts in a row after which it is given up (likewise)").PlaceHolder("N").IntVar(&s.Restart.MaxAttempts)
	cmd.Flag("restart_reset", "How long it must be healthy for its failures to be forgotten (likewise)").PlaceHolder("10s").SetValue((*milliseconds)(&s.Restart.ResetMS))
	cmd.Flag("ready", "How to tell that a service is ready: after=2s, nats=SUBJECT, micro=NAME, tcp=PORT, http=PORT/PATH (when it runs if not given)").PlaceHolder("HOW").SetValue(readiness{&s.Ready})
	cmd.Flag("ready_within", "How long it may take to get ready before it counts as failed (for ever if not given)").PlaceHolder("30s").SetValue((*milliseconds)(&s.Ready.WithinMS))
	cmd.Flag("ready_every", "Time between two looks at a service that is ready").PlaceHolder("5s").SetValue((*milliseconds)(&s.Ready.EveryMS))
	cmd.Flag("ready_timeout", "How long one answer may take").PlaceHolder("1s").SetValue((*milliseconds)(&s.Ready.TimeoutMS))
	cmd.Flag("cpus", "Processors a service may keep busy (what the node says if not given)").PlaceHolder("0.5").Float64Var(&s.Resources.CPUs)
	cmd.Flag("memory_mib", "Memory of a service (likewise)").PlaceHolder("128").IntVar(&s.Resources.MemoryMiB)
	cmd.Flag("pids", "Processes and threads of a service (likewise)").PlaceHolder("N").IntVar(&s.Resources.PIDs)
	cmd.Flag("files", "Open files of each process of a service (likewise)").PlaceHolder("N").IntVar(&s.Resources.Files)
	cmd.Flag("disk_mib", "What the directory of a service may hold (likewise)").PlaceHolder("100").IntVar(&s.Resources.DiskMiB)
}

// restartPolicy is a flag for a policy.
type restartPolicy nex.RestartPolicy

func (p *restartPolicy) Set(s string) error {
	return (*nex.RestartPolicy)(p).UnmarshalText([]byte(s))
}
func (p *restartPolicy) String() string { return string(*p) }

// readiness is a flag that says how to tell that a service is ready.
type readiness struct{ into *nex.Ready }

func (r readiness) Set(s string) error {
	how, what, _ := strings.Cut(s, "=")
	if what == "" {
		return fmt.Errorf("%q: want after=2s, nats=SUBJECT, micro=NAME, tcp=PORT or http=PORT/PATH", s)
	}
	var err error
	switch how {
	case "after":
		err = (*milliseconds)(&r.into.AfterMS).Set(what)
	case "nats":
		r.into.Subject = what
	case "micro":
		r.into.Micro = what
	case "tcp":
		r.into.TCPPort, err = port(what)
	case "http":
		number, path, _ := strings.Cut(what, "/")
		r.into.HTTPPath = "/" + path
		r.into.TCPPort, err = port(number)
	default:
		err = fmt.Errorf("cannot tell by %q: want after=2s, nats=SUBJECT, micro=NAME, tcp=PORT or http=PORT/PATH", how)
	}
	return err
}

func port(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port: want 1 to 65535", s)
	}
	return int(n), nil
}

// String is what Set took, "" for nothing.
func (r readiness) String() string {
	if r.into == nil {
		return ""
	}
	switch {
	case r.into.AfterMS > 0:
		return "after=" + (*milliseconds)(&r.into.AfterMS).String()
	case r.into.Subject != "":
		return "nats=" + r.into.Subject
	case r.into.Micro != "":
		return "micro=" + r.into.Micro
	case r.into.HTTPPath != "":
		return fmt.Sprintf("http=%d%s", r.into.TCPPort, r.into.HTTPPath)
	case r.into.TCPPort > 0:
		return fmt.Sprintf("tcp=%d", r.into.TCPPort)
	}
	return ""
}
