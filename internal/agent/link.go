package agent

import (
	"fmt"
	"net"
	"os"

	"nex/internal/guest"
)

// linkFD is the file descriptor of the guest link in an agent that a node
// started as a child process with a socket.
const linkFD = 3

// InheritedLink returns the link that the node which started this process
// passed on. It may be called once.
func InheritedLink() (net.Conn, error) {
	keepToOurselves()
	if os.Getenv(guest.LinkVariable) == guest.LinkPipes {
		return standardLink()
	}
	conn, err := inherit(linkFD)
	if err != nil {
		return nil, fmt.Errorf("no guest link on file descriptor %d: agents are started by nodes (nex node up)", linkFD)
	}
	return conn, nil
}
