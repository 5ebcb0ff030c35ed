package preflight

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/gofrs/flock"

	"nex/internal/machine"
)

const otherSandbox = "run the node on Linux, or without a sandbox (\"no_sandbox\": true, for code you trust)"

func (p *probe) system(context.Context) Finding {
	if runtime.GOOS != "linux" {
		return missing("this is "+runtime.GOOS, otherSandbox)
	}
	return found(systemName(), "")
}

func (p *probe) architecture(context.Context) Finding {
	if a := runtime.GOARCH; a != "amd64" && (a != "arm64" || p.vmm != "os") {
		return missing("this is "+a, "use \"sandbox\": \"os\", which arm64 has too, or \"no_sandbox\": true for code you trust")
	}
	return found(runtime.GOARCH, "")
}

// sandbox has an agent confine itself, as a node does when it starts.
func (p *probe) sandbox(ctx context.Context) Finding {
	agent, err := machine.FindAgent(p.Settings.AgentPath)
	if err != nil {
		return missing("it is tried with an agent, and there is none", "see Nex-agent binary")
	}
	dir, err := os.MkdirTemp("", "nex-preflight-*")
	if err != nil {
		return missing(err.Error(), "make the directory for temporary files writable")
	}
	defer func() { _ = os.RemoveAll(dir) }() // temporary
	gaps, err := p.confine(ctx, agent, dir)
	switch {
	case err != nil:
		return missing(err.Error(), "or set \"best_effort\": true to go on with what there is, or \"no_sandbox\": true for code you trust")
	case len(gaps) > 0:
		return doubtful(fmt.Sprintf("this host lacks parts of it: %v", gaps), "\"best_effort\" is set, and so the node goes on without them")
	}
	return found("namespaces, seccomp, Landlock", "")
}

// Disk that a node has use for, in bytes.
const (
	leastDisk = 256 << 20
	goodDisk  = 4 << 30
)

func (p *probe) disk(context.Context) Finding {
	dir := existing(p.StateDir)
	free, err := freeBytes(dir)
	if err != nil {
		return doubtful(fmt.Sprintf("the free space of %s is not known: %v", dir, err), "see with df that there is room").at(dir)
	}
	said := fmt.Sprintf("%s free for %s", humanize.IBytes(free), p.StateDir)
	const fix = "make room there, or have the node keep its state elsewhere (--state-dir, \"state_dir\")"
	switch {
	case free < leastDisk:
		return missing(said+", and "+humanize.IBytes(leastDisk)+" are needed at least", fix)
	case free < goodDisk:
		return doubtful(said+", and artifacts alone may take "+humanize.IBytes(goodDisk), fix)
	}
	return found(said, "")
}

// existing returns the first directory on the way up that is there.
func existing(dir string) string {
	dir, err := filepath.Abs(dir)
	for err == nil {
		if _, e := os.Stat(dir); e == nil || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// goodFiles is how many files a node should be able to have open.
const goodFiles = 4096

func (p *probe) files(context.Context) Finding {
	limit, err := fileLimit()
	if err != nil {
		return doubtful("the limit is not known: "+err.Error(), "see with ulimit -Hn that it is not low")
	}
	if limit < goodFiles {
		return doubtful(fmt.Sprintf("this process may have at most %d files open", limit), "raise the hard limit (ulimit -Hn, LimitNOFILE= of the systemd unit)")
	}
	return found(strconv.FormatUint(limit, 10)+" files", "")
}

// earliest is before any clock that is right.
var earliest = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func (p *probe) clock(context.Context) Finding {
	now := time.Now().UTC()
	if now.Before(earliest) {
		return missing("the clock says "+now.Format(time.RFC3339), "set it, and have it kept right (systemd-timesyncd, chrony)")
	}
	if info, err := os.Stat(p.Program); err == nil && now.Before(info.ModTime().Add(-24*time.Hour)) {
		return doubtful("the clock says "+now.Format(time.RFC3339)+", before this nex was made", "set it, and have it kept right (systemd-timesyncd, chrony)")
	}
	return found(now.Format(time.RFC3339), clockState())
}

// state looks whether the directory can be the node's. What is not there is not
// made: where it could be is enough.
func (p *probe) state(context.Context) Finding { return p.stateDir().at(p.StateDir) }

func (p *probe) stateDir() Finding {
	const fix = "give the node another directory with --state-dir or \"state_dir\""
	info, err := os.Stat(p.StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		above := existing(p.StateDir)
		if err := writable(above); err != nil {
			return missing(fmt.Sprintf("%s cannot be made in %s: %v", p.StateDir, above, err), fix)
		}
		return found(p.StateDir, "will be made")
	}
	switch {
	case err != nil:
		return missing(err.Error(), fix)
	case !info.IsDir():
		return missing(p.StateDir+" is no directory", fix)
	}
	if err := writable(p.StateDir); err != nil {
		return missing(err.Error(), fix)
	}
	if other, err := lockedByOther(filepath.Join(p.StateDir, "lock")); err != nil || other {
		if err != nil {
			return missing(err.Error(), fix)
		}
		return missing(p.StateDir+" is in use by another node", "stop it, or "+fix)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return doubtful(fmt.Sprintf("%s can be entered by other users (%s)", p.StateDir, info.Mode().Perm()), "chmod 700 "+p.StateDir)
	}
	return found(p.StateDir, "")
}

// lockedByOther reports whether a node holds a lock file, which it does not
// make.
func lockedByOther(path string) (bool, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	lock := flock.New(path, flock.SetFlag(os.O_RDWR))
	free, err := lock.TryLock()
	if err != nil {
		return false, err
	}
	return !free, lock.Close()
}

// port looks whether the node's own NATS server can listen.
func (p *probe) port(ctx context.Context) Finding {
	address := p.Settings.PublicServer.String()
	if p.Settings.PublicServer.Port < 0 {
		return found("any free port", "")
	}
	if p.Settings.PublicServer.Port == 0 {
		address = net.JoinHostPort(p.Settings.PublicServer.Host, "4222") // as nats-server has it
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return missing(err.Error(), "end what listens there, or choose another \"port\" in \"public_nats_server\"")
	}
	_ = l.Close() // nobody has connected
	return found(address, "")
}
