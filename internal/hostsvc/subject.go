package hostsvc

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"nex"
)

// maxSubjectLength bounds subjects: NATS ends connections that send longer
// lines, and this one may be everybody's.
const maxSubjectLength = 1024

// subjects says where workloads may send messages.
type subjects struct {
	allow, deny []string // patterns
}

// check refuses what is no subject, and where a workload may not send.
// Whatever the node's configuration says, that is where commands are given to
// NATS, JetStream and nodes, and the inboxes to which others are answered.
func (p subjects) check(subject string) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	first, _, _ := strings.Cut(subject, ".")
	switch {
	case strings.HasPrefix(first, "$"), first == "_INBOX", first == "_R_", first == "_GR_":
		return notForWorkloads(subject)
	case matchAny(p.deny, subject):
		return nex.Errorf(nex.Denied, "this node does not let workloads send to %.64q", subject)
	case len(p.allow) > 0 && !matchAny(p.allow, subject):
		return nex.Errorf(nex.Denied, "this node lets workloads send to some subjects, and %.64q is not one of them", subject)
	}
	return nil
}

func notForWorkloads(subject string) error {
	return nex.Errorf(nex.Denied, "the subject %.64q is not for workloads", subject)
}

// checkSubject refuses what is not the subject of one message.
func checkSubject(s string) error {
	switch {
	case s == "":
		return nex.Errorf(nex.Invalid, "subject is required")
	case len(s) > maxSubjectLength:
		return nex.Errorf(nex.Invalid, "the subject has %d bytes, the most are %d", len(s), maxSubjectLength)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return nex.Errorf(nex.Invalid, "the subject %.64q has white space or control characters", s)
	}
	for token := range strings.SplitSeq(s, ".") {
		switch token {
		case "":
			return nex.Errorf(nex.Invalid, "the subject %.64q has an empty token", s)
		case "*", ">":
			return nex.Errorf(nex.Invalid, "the subject %.64q has wildcards", s)
		}
	}
	return nil
}

// checkPattern refuses what is no subject with wildcards.
func checkPattern(p string) error {
	tokens := strings.Split(p, ".")
	for i, token := range tokens {
		if token == "*" || token == ">" && i == len(tokens)-1 {
			tokens[i] = "x"
		}
	}
	if err := checkSubject(strings.Join(tokens, ".")); err != nil {
		return nex.Errorf(nex.Invalid, "%.64q is no subject: want tokens with dots between them, of which * stands for any, and > at the end for any that follow", p)
	}
	return nil
}

func matchAny(patterns []string, subject string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, subject) })
}

// match reports whether a pattern with the wildcards of NATS stands for a
// subject.
func match(pattern, subject string) bool {
	p, s := strings.Split(pattern, "."), strings.Split(subject, ".")
	for i, token := range p {
		if token == ">" {
			return len(s) > i
		}
		if i >= len(s) || token != "*" && token != s[i] {
			return false
		}
	}
	return len(p) == len(s)
}
