package machine

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"time"

	"nex"
)

// tick is the unit of processor time in /proc, on every Linux that Go runs on.
const tick = time.Second / 100

// sessionUsage sums up what the processes of a session use that are alive. What
// those used that have ended counts where their parents waited for them.
func sessionUsage(session int) (nex.Usage, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nex.Usage{}, err
	}
	var u nex.Usage
	var ticks int64
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !liveInSession(pid, session) {
			continue
		}
		data, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The fields after the name, from the third: see proc_pid_stat(5).
		f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(f) < 22 {
			continue
		}
		number := func(i int) int64 { n, _ := strconv.ParseInt(f[i-3], 10, 64); return n } // the kernel's own
		ticks += number(14) + number(15) + number(16) + number(17)
		u.PIDs += int(number(20))
		u.MemoryBytes += number(24) * int64(os.Getpagesize())
	}
	u.CPUMS = (time.Duration(ticks) * tick).Milliseconds()
	return u, nil
}
