package confine

import "golang.org/x/sys/unix"

// For the tests.
const (
	FirstUser = firstUser
	UserCount = userCount
)

var (
	Denied    = denied
	FreeUsers = freeUsers
	Rules     = rules
)

// FilterOf makes calls fail and allows all others.
func FilterOf(errno unix.Errno, calls ...uintptr) []unix.SockFilter {
	f := filter{load(offsetCall)}
	for _, call := range calls {
		f.on(call, fail(errno))
	}
	return append(f, allow)
}
