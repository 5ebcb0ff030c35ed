package rootfs

import (
	"debug/elf"
	"fmt"
)

// CheckAgent refuses a file that cannot be the agent of a guest: guests are Linux
// on amd64 and have no libraries.
func CheckAgent(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("the agent for guests: %w (name one for Linux with --agent)", err)
	}
	defer func() { _ = f.Close() }() // was only read
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("%s is for %s, and guests need an agent for Linux on amd64", path, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s needs shared libraries, which guests do not have: use the static nex-agent that make build makes", path)
		}
	}
	return nil
}
