package node

import (
	"bufio"
	"fmt"
	"os"

	"nex"
)

// hostMemory reads /proc/meminfo; fields that cannot be read are 0.
func hostMemory() nex.Memory {
	var m nex.Memory
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return m
	}
	defer f.Close()
	fields := map[string]*int{"MemTotal:": &m.Total, "MemFree:": &m.Free, "MemAvailable:": &m.Available}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var name string
		var kB int
		if n, _ := fmt.Sscan(lines.Text(), &name, &kB); n == 2 && fields[name] != nil {
			*fields[name] = kB
		}
	}
	return m
}
