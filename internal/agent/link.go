package agent

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"nex/internal/guest"
)

// The file descriptors of the guest link in an agent that a node started as a
// child process: pipes to read from and to write to.
const (
	linkInFD  = 3
	linkOutFD = 4
)

// InheritedLink returns the link that the node which started this process
// passed on. It may be called once.
func InheritedLink() (net.Conn, error) {
	keepToOurselves()
	if os.Getenv(guest.LinkVariable) == guest.LinkPipes {
		return standardLink()
	}
	conn, err := inherit(linkInFD, linkOutFD)
	if err != nil {
		return nil, fmt.Errorf("no guest link on file descriptors %d and %d: agents are started by nodes (nex node up)", linkInFD, linkOutFD)
	}
	return conn, nil
}

// InheritedDoors returns the files that lead to where services are limited, which
// the node that started this process passed on. It may be called once.
func InheritedDoors() ([]*os.File, error) {
	list := os.Getenv(guest.WorkVariable)
	if list == "" {
		return nil, nil
	}
	var doors []*os.File
	for text := range strings.SplitSeq(list, ",") {
		fd, err := strconv.Atoi(text)
		if err != nil || fd <= linkOutFD {
			return nil, fmt.Errorf("%s holds no file descriptors: %.40q", guest.WorkVariable, list)
		}
		doors = append(doors, os.NewFile(uintptr(fd), "cgroup"))
	}
	return doors, nil
}
