package workload

import (
	"crypto/sha256"

	"nex/internal/guest"
)

// group is who may share guests: functions of one namespace that were never
// suspected of the same loss as a crowd, or went the same way each time.
type group struct {
	namespace string
	halves    string // a digit, 0 or 1, for each time the group was halved
}

// half returns the half of the group that a workload belongs to. Members of one
// group have had the same halves so far, and part evenly at the next.
func (g group) half(id string) group {
	sum := sha256.Sum256([]byte(id))
	n := len(g.halves) % (8 * len(sum))
	g.halves += string('0' + rune(sum[n/8]>>(n%8)&1))
	return g
}

// part takes the workload away from others after a loss that may have been its
// fault, and reports whether it did: if it is one of few suspects it is alone
// from now on. A crowd only parts in two, since a guest for each could be more
// than the host has; who is to blame soon has little company.
func (w *workload) part(f guest.Fault) bool {
	switch {
	case w.alone:
		return false
	case f == guest.FaultOwn:
		w.alone = true
	case f == guest.FaultCrowd:
		w.group = w.group.half(w.id)
	default:
		return false
	}
	return true
}
