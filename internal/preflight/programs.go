package preflight

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"

	"nex/internal/cgroup"
	"nex/internal/machine"
	"nex/internal/machine/firecracker"
	"nex/internal/machine/microvm"
	"nex/internal/machine/qemu"
	"nex/internal/vmnet/tap"
)

// plugin returns the test of a CNI plugin, which is looked for as libcni does.
func plugin(name string) func(*probe, context.Context) Finding {
	return func(p *probe, _ context.Context) Finding {
		f := p.pluginFile(name)
		if f.Result == Missing && p.withoutPlugins() {
			f.Result, f.Detail = Warning, f.Detail+"; machines get QEMU's own network instead, which is slower"
		}
		f.Searched = p.Settings.PluginDirs(p.StateDir)
		return f
	}
}

func (p *probe) pluginFile(name string) Finding {
	const fix = "install it (on Debian: apt-get install containernetworking-plugins), name its directory in \"cni.bin_path\", or let nex node preflight install it"
	path, err := invoke.FindInPath(name, p.Settings.PluginDirs(p.StateDir))
	if err != nil {
		return missing("it is in none of the directories that are searched (\"cni.bin_path\")", fix)
	}
	if _, err := exec.LookPath(path); err != nil {
		return missing(err.Error(), "make it executable (chmod 755 "+path+"), or remove it: it is taken before those in other directories").at(path)
	}
	return found(path, "").at(path)
}

func (p *probe) tap(context.Context) Finding {
	f := found(p.Program, "nex itself").at(p.Program)
	dirs := p.Settings.PluginDirs(p.StateDir)
	if _, err := invoke.FindInPath(tap.Name, dirs); err == nil { // of the operator, who goes first
		f = p.pluginFile(tap.Name)
	}
	f.Searched = dirs
	return f
}

const getFirecracker = "install Firecracker " + firecracker.Supported + " in one of the directories of \"bin_path\", or let nex node preflight install it"

func (p *probe) firecracker(ctx context.Context) Finding {
	program, version, err := firecracker.Find(ctx, p.programDirs())
	return p.program(program, version, err, errors.Is(err, firecracker.ErrMissing), getFirecracker)
}

// jailer also looks at its settings, as a node does before it uses it.
func (p *probe) jailer(ctx context.Context) Finding {
	vmm, version, err := firecracker.Find(ctx, p.programDirs())
	if err != nil {
		beside := microvm.FindProgram("jailer", p.programDirs())
		return p.program(beside, "", errors.New("it belongs to a Firecracker, and there is none that a node would use"), beside == "", getFirecracker)
	}
	program, err := firecracker.FindJailer(ctx, vmm, version, p.programDirs())
	f := p.program(program, version, err, errors.Is(err, firecracker.ErrNoJailer), getFirecracker+`, or set "jailer": {"enabled": false} to have Firecracker run as root`)
	if f.Result != OK {
		return f
	}
	kind, _ := cgroup.Look() // it is of no kind where it fails
	if err := p.jail().Check(kind); err != nil {
		f.Result, f.Detail, f.Fix = Missing, err.Error(), "change \"jailer\" in the configuration"
	}
	return f
}

// jail is that of the node's machines.
func (p *probe) jail() *firecracker.Jail {
	s := p.Settings.Jailer
	return &firecracker.Jail{UID: s.UID, GID: s.GID, ChrootBase: s.ChrootBase, Cgroup: s.Cgroup}
}

func (p *probe) qemu(ctx context.Context) Finding {
	program, version, err := qemu.Find(ctx, p.programDirs())
	return p.program(program, version, err, errors.Is(err, qemu.ErrMissing), "install it (on Debian: apt-get install qemu-system-x86)")
}

func (p *probe) programDirs() []string { return p.Settings.ProgramDirs(p.StateDir) }

// program is the finding about a program, from what its driver says of it.
func (p *probe) program(path, version string, err error, none bool, how string) Finding {
	f := found(path, version)
	switch {
	case none:
		f = missing("it is in none of the directories that are searched (\"bin_path\")", how)
	case err != nil:
		f = missing(err.Error(), how)
	}
	f.Path, f.Searched = path, p.programDirs()
	return f
}

func (p *probe) agent(ctx context.Context) Finding {
	path, err := machine.FindAgent(p.Settings.AgentPath)
	if err != nil {
		return missing(err.Error(), "put the "+machine.AgentName()+" of this build beside "+p.Program+" or name it in \"agent_path\"")
	}
	output, err := microvm.AskVersion(ctx, path)
	if err != nil {
		return missing(err.Error(), "put the "+machine.AgentName()+" of this build there").at(path)
	}
	if version := strings.TrimSpace(output); version != p.Version {
		return doubtful(fmt.Sprintf("%s is of version %.60s, and this nex of %s", path, version, p.Version), "use the two programs of one build").at(path)
	}
	return found(path, p.Version).at(path)
}
