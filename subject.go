package nex

import (
	"fmt"
	"strings"
)

// Prefix is the first token of every control subject.
const Prefix = "$NEX"

// Control subjects a node listens on. The ones ending in a node id are heard
// by that node alone; the others by every node.
const (
	PingSubject         = Prefix + ".PING"
	WorkloadPingSubject = Prefix + ".WPING"
	AuctionSubject      = Prefix + ".AUCTION"
)

// SystemNamespace is the namespace of events that concern a node.
const SystemNamespace = "system"

// DefaultNamespace is used where a caller names none.
const DefaultNamespace = "default"

// NodePingSubject is where one node answers a ping.
func NodePingSubject(node string) string { return PingSubject + "." + node }

// InfoSubject is where a node tells about itself and one namespace.
func InfoSubject(namespace, node string) string { return join("INFO", namespace, node) }

// DeploySubject is where a node takes a [DeployRequest] for a namespace.
func DeploySubject(namespace, node string) string { return join("DEPLOY", namespace, node) }

// StopSubject is where a node takes a [StopRequest] for a namespace.
func StopSubject(namespace, node string) string { return join("STOP", namespace, node) }

// LameDuckSubject is where a node is told to take no new work.
func LameDuckSubject(node string) string { return join("LAMEDUCK", node) }

// EventSubject is where events of one type and namespace are published.
// Either may be "*".
func EventSubject(namespace, eventType string) string { return join("events", namespace, eventType) }

// SystemLogSubject is where a node publishes its own log, a line of text in
// each message; stream is "stdout", or "stderr" for errors.
func SystemLogSubject(node, stream string) string {
	return join("logs", SystemNamespace, node, stream)
}

func join(tokens ...string) string { return Prefix + "." + strings.Join(tokens, ".") }

// Lengths in bytes. A NATS server ends the connection of whoever sends a line
// of its protocol that is longer than 4,096 bytes, so all that goes into
// subjects and queue groups has a bound that keeps them below together.
const (
	maxToken   = 255
	maxSubject = 1024
)

// ValidToken reports whether s can stand as one token of a control subject:
// not empty, at most 255 bytes, no white space, no dot, no wildcard and no
// control character.
func ValidToken(s string) bool {
	return s != "" && len(s) <= maxToken && !strings.ContainsFunc(s, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r == '.' || r == '*' || r == '>'
	})
}

// ValidReply reports whether a node may answer on the reply subject of a
// message: there is one, not too long, and it is no way to give commands with
// the node's permissions, to nodes, JetStream or the server.
func ValidReply(s string) bool {
	for _, prefix := range []string{Prefix + ".", "$JS.", "$KV.", "$O.", "$SYS."} {
		if strings.HasPrefix(s, prefix) {
			return false
		}
	}
	return s != "" && len(s) <= maxSubject
}

// ParseEventSubject returns the namespace and type that [EventSubject] joined.
func ParseEventSubject(s string) (namespace, eventType string, err error) {
	t := strings.Split(s, ".")
	if len(t) != 4 || t[0] != Prefix || t[1] != "events" {
		return "", "", fmt.Errorf("event subject %q: want %s.events.NAMESPACE.TYPE", s, Prefix)
	}
	return t[2], t[3], nil
}

// LogSubject is the subject of one workload's log records. Any field may be
// "*" in a subscription.
type LogSubject struct{ Namespace, Node, Workload, ID string }

func (s LogSubject) String() string { return join("logs", s.Namespace, s.Node, s.Workload, s.ID) }

// ParseLogSubject is the inverse of [LogSubject.String].
func ParseLogSubject(s string) (LogSubject, error) {
	t := strings.Split(s, ".")
	if len(t) != 6 || t[0] != Prefix || t[1] != "logs" {
		return LogSubject{}, fmt.Errorf("log subject %q: want %s.logs.NAMESPACE.NODE.WORKLOAD.ID", s, Prefix)
	}
	return LogSubject{Namespace: t[2], Node: t[3], Workload: t[4], ID: t[5]}, nil
}

// ValidTrigger reports why s cannot be a trigger subject, or nil. Wildcards
// are allowed: "*" as a whole token, ">" as the last one.
func ValidTrigger(s string) error {
	if s == "" {
		return Errorf(Invalid, "trigger subject is empty")
	}
	if len(s) > maxSubject {
		return Errorf(Invalid, "trigger subject %.64q… has %d bytes: the most are %d", s, len(s), maxSubject)
	}
	tokens := strings.Split(s, ".")
	for i, t := range tokens {
		switch {
		case t == "":
			return Errorf(Invalid, "trigger subject %q has an empty token", s)
		case t == "*", t == ">" && i == len(tokens)-1:
		case t == ">":
			return Errorf(Invalid, "trigger subject %q: \">\" may only be the last token", s)
		case strings.ContainsFunc(t, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return Errorf(Invalid, "trigger subject %q holds white space or a control character", s)
		}
	}
	return nil
}

// SubjectsOverlap reports whether some subject matches both patterns.
func SubjectsOverlap(a, b string) bool {
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := 0; ; i++ {
		switch {
		case i == len(as) && i == len(bs):
			return true
		case i == len(as):
			return false
		case i == len(bs):
			return false
		case as[i] == ">" || bs[i] == ">":
			return true
		case as[i] != bs[i] && as[i] != "*" && bs[i] != "*":
			return false
		}
	}
}
