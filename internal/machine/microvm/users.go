package microvm

import (
	"fmt"
	"hash/fnv"
	"os"
	"sync"
)

// The users of machines: numbers that systems give to nobody, nor to anybody's
// containers, and that are not those of the OS sandbox.
const (
	firstUser = 2_000_000_000
	userCount = 1 << 26
)

// UserOf is the number of a machine's user and group, unless another machine
// has it.
func UserOf(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return firstUser + int(h.Sum32()%userCount)
}

// Users keeps the users of the machines that there are apart. The zero value has
// none. It is safe for concurrent use.
type Users struct {
	mu    sync.Mutex
	taken map[int]bool
}

// Take returns a user for a machine, which no other machine here has.
func (u *Users) Take(id string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.taken == nil {
		u.taken = map[int]bool{}
	}
	user := UserOf(id)
	for u.taken[user] {
		user = firstUser + (user-firstUser+1)%userCount
	}
	u.taken[user] = true
	return user
}

// Return gives a machine's user back.
func (u *Users) Return(user int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.taken, user)
}

// Count is how many machines have one.
func (u *Users) Count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.taken)
}

// MayUseUsers reports whether this process may run others as the users of machines:
// it is root, and in a user namespace that has them.
func MayUseUsers() bool {
	return os.Geteuid() == 0 && maps("/proc/self/uid_map") && maps("/proc/self/gid_map")
}

// maps reports whether a map of a user namespace has all users of machines: lines of "INSIDE OUTSIDE
// COUNT", see user_namespaces(7).
func maps(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for {
		var inside, outside, count uint64
		if _, err := fmt.Fscan(f, &inside, &outside, &count); err != nil {
			return false
		}
		if inside <= firstUser && inside+count >= firstUser+userCount {
			return true
		}
	}
}
