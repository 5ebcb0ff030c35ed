//go:build linux

package chaos

import (
	"bytes"
	"strconv"
	"sync/atomic"
)

// Plant is a fault of the driver's own making, which it must find.
type Plant string

// What can be planted.
const (
	LostReply       Plant = "lost reply"       // some replies never reach who asked
	LeakedAgent     Plant = "leaked agent"     // agents leave a process that their node cannot find
	DoubledUndeploy Plant = "doubled undeploy" // undeploy events come twice
)

// every is how many replies there are for one that is lost.
const every = 20

// alter returns what a proxy does to what a node sends, nil for nothing.
func (p Plant) alter() func([]byte) []byte {
	switch p {
	case LostReply:
		var n atomic.Int64
		return func(data []byte) []byte {
			at := bytes.Index(data, []byte("PUB "+replyPrefix))
			if at < 0 || n.Add(1)%every != 0 {
				return data
			}
			data[at+len("PUB ")]++ // somebody else's subject
			return data
		}
	case DoubledUndeploy:
		return doubleUndeploy
	}
	return nil
}

// doubleUndeploy repeats the first undeploy event that is whole.
func doubleUndeploy(data []byte) []byte {
	head := []byte("PUB $NEX.events.default.workload_undeployed ")
	at := bytes.Index(data, head)
	if at < 0 {
		return data
	}
	size, rest, ok := bytes.Cut(data[at+len(head):], []byte("\r\n"))
	n, err := strconv.Atoi(string(size))
	if !ok || err != nil || len(rest) < n+2 {
		return data
	}
	whole := data[at : len(data)-len(rest)+n+2]
	return bytes.Join([][]byte{data[:at], whole, data[at:]}, nil)
}
