package hostsock

import (
	"time"

	"nex/internal/runtime"
)

// What the tests of this package see of it.
var (
	Split      = split
	ReadHeader = readHeader
	Match      = match
)

// ListenShort is Listen with limits that a test can wait for.
func ListenShort(path string, h runtime.Host, maxBody int64, log runtime.Log) (*Server, error) {
	const short = 100 * time.Millisecond
	s := &Server{host: h, maxBody: maxBody, limits: limits{connections: 16, header: 4 << 10, headerTime: short, idle: short, transfer: 3 * short}}
	return s, s.listen(path, log)
}
