// Package tap is the CNI plugin that gives a microVM its network card: a tap
// device beside the interface that an earlier plugin made, and a redirection of
// all frames between the two. It is built into nex, which behaves as the plugin
// when it is called by the plugin's name, as through a symbolic link.
//
// It speaks the Container Network Interface (version 0.1.0 to 1.1.0) and answers
// in the shape of the plugin tc-redirect-tap, so that either may stand in for the
// other. A call is a process of its own, which touches only the network namespace
// it was given.
package tap

import "path/filepath"

// Name is what the plugin is called in network configurations, and the name of
// the file that it is run by.
const Name = "tc-redirect-tap"

// Called reports whether a program that was started as argv0, with the variable
// CNI_COMMAND set to command, was called as the plugin.
func Called(argv0, command string) bool { return command != "" && filepath.Base(argv0) == Name }
