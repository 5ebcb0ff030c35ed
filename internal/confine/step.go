package confine

import "io"

// Step is a command that is run as root of a directory tree, with that as its
// root directory, to build an image: as process 1 of namespaces of its own, whose
// users are the host's, but without what root may do to a host, behind the seccomp filter.
type Step struct {
	Root    string    // the directory; nobody else may write below it meanwhile
	Command string    // for /bin/sh -c, in the directory /
	Env     []string  // all that it has
	Network Network   // with [HostNetwork] it has the host's resolv.conf, too
	Output  io.Writer // of what it prints
}

// stepVariable names the environment variable that has [BeStep] become a step.
const stepVariable = "NEX_CONFINE_STEP"
