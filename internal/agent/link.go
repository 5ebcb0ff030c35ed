package agent

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// linkFD is the file descriptor of the guest link in an agent that a node
// started as a child process.
const linkFD = 3

// InheritedLink returns the link that the node which started this process
// passed on. It may be called once.
func InheritedLink() (net.Conn, error) {
	keepToOurselves()
	file := os.NewFile(linkFD, "guest link")
	conn, err := net.FileConn(file) // duplicates the descriptor
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("no guest link on file descriptor %d: agents are started by nodes (nex node up)", linkFD)
	}
	return conn, nil
}
