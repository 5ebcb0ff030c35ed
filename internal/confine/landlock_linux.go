package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What Landlock's versions bring. REFER (moving files between directories, which
// agents do) is the least; scopes keep a machine with the host's network from
// the host's abstract sockets.
const (
	abiRefer    = 2 // Linux 5.19
	abiTruncate = 3
	abiNetwork  = 4
	abiDevices  = 5
	abiScopes   = 6 // Linux 6.12
)

// Rights to what is below a directory.
const (
	readFiles = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	runFiles  = readFiles | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// ofFile are those that a file can have itself.
	ofFile    = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	useDevice = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	anything  = 1<<62 - 1
)

// grant is a right to a path, or to an open file.
type grant struct {
	path   string
	fd     int // instead of a path, where that is ""
	rights uint64
}

// common are the grants that agents and services have alike. In a plain sandbox
// the paths are the host's.
func (s *spec) common() []grant {
	grants := []grant{{path: "/proc", rights: readFiles}}
	for _, name := range devices {
		grants = append(grants, grant{path: "/dev/" + name, rights: useDevice})
	}
	if s.Plain {
		for _, path := range hostFiles {
			grants = append(grants, grant{path: path, rights: readFiles})
		}
		return grants
	}
	return append(grants, grant{path: "/etc", rights: readFiles}, grant{path: tmpDir, rights: anything}, grant{path: "/dev/shm", rights: anything})
}

// landlock confines the agent to its directory.
func (s *spec) landlock() error {
	abi, _ := landlockVersion()
	if abi < abiScopes && (s.Network == HostNetwork || s.Plain) {
		if !s.BestEffort || abi < abiRefer {
			return fmt.Errorf("this kernel (Landlock version %d) cannot keep machines that have the host's network from its abstract Unix sockets: use Linux 6.12 or later, or \"os_sandbox\": {\"network\": \"none\"}", abi)
		}
		s.Missing = append(s.Missing, "landlock scopes: Linux 6.12 or later has them")
	}
	return restrict(append(s.common(),
		grant{path: ".", rights: anything},
		grant{fd: s.Agent, rights: runFiles},
	), s.Plain && s.Network != HostNetwork)
}

// landlockService confines the calling thread to a service's directory. What it
// starts can neither trace the agent nor, where the kernel has that, signal it.
func (s *spec) landlockService(dir string) error {
	return restrict(append(s.common(),
		grant{path: dir, rights: runFiles},
		grant{path: filepath.Join(dir, "home"), rights: anything},
		grant{path: "/proc/self/exe", rights: runFiles}, // the agent's program, which becomes the service
	), false)
}

// landlockVersion returns 0 where the kernel has no Landlock. errata are bits of
// what was repaired in it.
func landlockVersion() (abi, errata int) {
	const version, repaired = 1, 2
	ask := func(what uintptr) int {
		n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, what)
		if errno != 0 {
			return 0
		}
		return int(n)
	}
	return ask(version), ask(repaired)
}

// restrict lets the calling thread do nothing with files but what is granted,
// and keeps it from the processes and abstract sockets of those who are not
// restricted as it is. Paths that do not exist grant nothing.
func restrict(grants []grant, noTCP bool) error {
	abi, errata := landlockVersion()
	if abi < abiRefer {
		return fmt.Errorf("this kernel has no Landlock, or an old one (version %d): use Linux 5.19 or later with \"landlock\" in its lsm= parameter", abi)
	}
	rules := unix.LandlockRulesetAttr{Handled_access_fs: handled(abi)}
	size := unsafe.Sizeof(rules.Handled_access_fs)
	if abi >= abiNetwork {
		size += unsafe.Sizeof(rules.Handled_access_net)
		if noTCP {
			rules.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if abi >= abiScopes {
		size += unsafe.Sizeof(rules.Scoped)
		rules.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		// Before this was repaired a thread could not signal others of its own
		// process, which Go's scheduler does.
		const amongThreads = 1 << 1
		if errata&amongThreads != 0 {
			rules.Scoped |= unix.LANDLOCK_SCOPE_SIGNAL
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), size, 0)
	if errno != 0 {
		return fmt.Errorf("make rules: %w", errno)
	}
	ruleset := int(fd)
	defer unix.Close(ruleset)
	for _, g := range grants {
		if err := g.add(ruleset, rules.Handled_access_fs); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return fmt.Errorf("apply rules: %w", errno)
	}
	return nil
}

// handled are the rights that a version of Landlock knows, all of which are
// denied unless granted.
func handled(abi int) uint64 {
	rights := uint64(unix.LANDLOCK_ACCESS_FS_REFER)<<1 - 1
	if abi >= abiTruncate {
		rights |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= abiDevices {
		rights |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return rights
}

func (g grant) add(ruleset int, known uint64) error {
	fd := g.fd
	if g.path != "" {
		var err error
		if fd, err = unix.Open(g.path, unix.O_PATH|unix.O_CLOEXEC, 0); errors.Is(err, unix.ENOENT) {
			return nil
		} else if err != nil {
			return &os.PathError{Op: "open", Path: g.path, Err: err}
		}
		defer unix.Close(fd)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: g.path, Err: err}
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: g.rights & known, Parent_fd: int32(fd)}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rule.Allowed_access &= ofFile
	}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "grant", Path: g.path, Err: errno}
	}
	return nil
}
