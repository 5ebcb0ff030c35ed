package preflight

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"nex/internal/machine"
	"nex/internal/vmnet/tap"
)

// qemuProgram is QEMU for the one processor that microVMs are made for.
const qemuProgram = "qemu-system-x86_64"

// askVersion bounds how long a program may take to say its version.
const askVersion = 5 * time.Second

// The versions that drivers were made for.
const (
	oldestFirecracker, newestFirecracker = 8, 16 // of 1.x
	oldestQEMU                           = 5     // the first whose machine microvm is complete
)

// findIn returns the first executable of a name in directories, "" if there is none.
func findIn(dirs []string, name string) string {
	for _, dir := range dirs {
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			continue
		}
		if path, err = exec.LookPath(path); err == nil {
			return path
		}
	}
	return ""
}

func (p *probe) has(program string) bool {
	return findIn(p.Settings.ProgramDirs(p.StateDir), program) != ""
}

// plugin returns the test of a CNI plugin.
func plugin(name item) func(*probe, context.Context) Finding {
	return func(p *probe, _ context.Context) Finding {
		dirs := p.Settings.PluginDirs(p.StateDir)
		f := missing("it is in none of the directories that are searched (\"cni.bin_path\")",
			"install it (on Debian: apt-get install containernetworking-plugins), name its directory in \"cni.bin_path\", or let nex node preflight install it")
		if path := findIn(dirs, string(name)); path != "" {
			f = found(path, "")
		}
		f.Searched = dirs
		return f
	}
}

func (p *probe) tap(context.Context) Finding {
	f := found(p.Program, "nex itself")
	f.Searched = p.Settings.PluginDirs(p.StateDir)
	if path := findIn(f.Searched, tap.Name); path != "" { // of the operator, who goes first
		f.Found, f.Detail = path, ""
	}
	return f
}

// program finds a program and has its version looked at.
func (p *probe) program(ctx context.Context, name, how string, version func(output string) (string, error)) Finding {
	dirs := p.Settings.ProgramDirs(p.StateDir)
	path := findIn(dirs, name)
	if path == "" {
		f := missing("it is in none of the directories that are searched (\"bin_path\")", how)
		f.Searched = dirs
		return f
	}
	output, err := ask(ctx, path)
	said := ""
	if err == nil {
		said, err = version(output)
	}
	f := found(path, said)
	if err != nil {
		f = missing(path+": "+err.Error(), how)
	}
	f.Searched = dirs
	return f
}

// ask has a program say its version.
func ask(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askVersion)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.WaitDelay = time.Second
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("it does not say its version: %w", err)
	}
	return string(output), nil
}

const getFirecracker = "install Firecracker 1.8 to 1.16 in one of the directories of \"bin_path\", or let nex node preflight install it"

func (p *probe) firecracker(ctx context.Context) Finding {
	return p.program(ctx, "firecracker", getFirecracker, func(o string) (string, error) { return firecrackerVersion("Firecracker", o) })
}

func (p *probe) jailer(ctx context.Context) Finding {
	return p.program(ctx, "jailer", getFirecracker, func(o string) (string, error) { return firecrackerVersion("Jailer", o) })
}

func (p *probe) qemu(ctx context.Context) Finding {
	return p.program(ctx, qemuProgram, "install it (on Debian: apt-get install qemu-system-x86)", qemuVersion)
}

var versionNumber = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})(\.\d{1,4})?\S*$`)

// firecrackerVersion reads what Firecracker, or its jailer, says of itself, as
// "Firecracker v1.12.0", and refuses versions that the driver does not know.
func firecrackerVersion(name, output string) (string, error) {
	line, _, _ := strings.Cut(output, "\n")
	said, version, _ := strings.Cut(strings.TrimSpace(line), " ")
	m := versionNumber.FindStringSubmatch(version)
	if !strings.EqualFold(said, name) || m == nil {
		return "", fmt.Errorf("it says %.80q where %s says its name and version", line, name)
	}
	major, _ := strconv.Atoi(m[1]) // digits, see above
	minor, _ := strconv.Atoi(m[2])
	switch {
	case major < 1 || major == 1 && minor < oldestFirecracker:
		return "", fmt.Errorf("version %s is too old: kernels find their devices by ACPI, which Firecracker has since 1.%d", version, oldestFirecracker)
	case major > 1 || minor > newestFirecracker:
		return "", fmt.Errorf("version %s is newer than those that this nex was made for, up to 1.%d", version, newestFirecracker)
	}
	return version, nil
}

// qemuVersion reads what QEMU says, as "QEMU emulator version 7.2.9 (Debian …)".
func qemuVersion(output string) (string, error) {
	_, rest, ok := strings.Cut(output, "QEMU emulator version ")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return "", fmt.Errorf("it says %.80q, which is no QEMU", output)
	}
	m := versionNumber.FindStringSubmatch(fields[0])
	if m == nil {
		return "", fmt.Errorf("it says that it is of version %.40q", fields[0])
	}
	if major, _ := strconv.Atoi(m[1]); major < oldestQEMU {
		return "", fmt.Errorf("version %s is too old: its machine \"microvm\" is complete since %d.0", fields[0], oldestQEMU)
	}
	return fields[0], nil
}

func (p *probe) agent(ctx context.Context) Finding {
	path, err := machine.FindAgent(p.Settings.AgentPath)
	if err != nil {
		return missing(err.Error(), "put the "+machine.AgentName()+" of this build beside "+p.Program+" or name it in \"agent_path\"")
	}
	output, err := ask(ctx, path)
	if err != nil {
		return missing(path+": "+err.Error(), "put the "+machine.AgentName()+" of this build there")
	}
	if version := strings.TrimSpace(output); version != p.Version {
		return doubtful(fmt.Sprintf("%s is of version %.60s, and this nex of %s", path, version, p.Version), "use the two programs of one build")
	}
	return found(path, p.Version)
}
