package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// recordPath is where an image says what it was made of.
const recordPath = "/etc/nex/rootfs.json"

// Record is what an image says it was made of. Who makes images can write what
// they like.
type Record struct {
	AgentVersion string `json:"agent_version,omitempty"`
	Base         string `json:"base"`
	Digest       string `json:"digest,omitempty"` // of the base, if it is an image
	Start        string `json:"start"`            // what starts the agent
}

// Facts are what Inspect finds in a file system.
type Facts struct {
	Size        int64  `json:"size"`         // bytes
	Free        int64  `json:"free"`         // bytes that nothing uses
	FreeInodes  int64  `json:"free_inodes"`  // how many more files there may be
	UUID        string `json:"uuid"`         //
	AgentSize   int64  `json:"agent_size"`   // bytes; 0 if there is no agent
	AgentSHA256 string `json:"agent_sha256"` // of what the file system has, "" if it has none
	Init        bool   `json:"init"`         // there is a /sbin/init; it starts first if the agent is its service (Record.Start)
	Script      bool   `json:"script"`       // there is a boot script
	Record      Record `json:"record"`
}

// ErrNoAgent means that a file system has no agent, or one that is not executable.
var ErrNoAgent = errors.New("no agent at " + AgentPath + " that is executable")

// Inspect tells about the file system in the file at path, which may be
// compressed with gzip. It returns facts with ErrNoAgent, too.
func Inspect(ctx context.Context, path string) (Facts, error) {
	temp, err := os.MkdirTemp("", "nex-rootfs-*")
	if err != nil {
		return Facts{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // temporary
	file, err := uncompressed(ctx, path, temp)
	if err != nil {
		return Facts{}, err
	}
	f, err := os.Open(file)
	if err != nil {
		return Facts{}, err
	}
	defer func() { _ = f.Close() }() // was only read
	fs, err := openExt4(f)
	if err != nil {
		return Facts{}, fmt.Errorf("%s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return Facts{}, err
	}
	if info.Size() < fs.blocks*fs.block {
		return Facts{}, fmt.Errorf("%s is cut off: its file system has %d bytes, the file %d", path, fs.blocks*fs.block, info.Size())
	}
	facts, err := fs.facts(ctx)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return facts, err
}

func (f *reader) facts(ctx context.Context) (Facts, error) {
	u := hex.EncodeToString(f.uuid[:])
	facts := Facts{
		Size: f.blocks * f.block, Free: f.free * f.block, FreeInodes: f.freeInodes,
		UUID: u[:8] + "-" + u[8:12] + "-" + u[12:16] + "-" + u[16:20] + "-" + u[20:],
	}
	for path, found := range map[string]*bool{"/sbin/init": &facts.Init, ScriptPath: &facts.Script} {
		i, err := f.find(path)
		if err != nil && !errors.Is(err, errNoFile) {
			return facts, err
		}
		*found = err == nil && i.kind() == typeFile
	}
	if err := f.record(&facts.Record); err != nil {
		return facts, err
	}
	agent, err := f.find(AgentPath)
	switch {
	case errors.Is(err, errNoFile):
		return facts, ErrNoAgent
	case err != nil:
		return facts, err
	case agent.kind() != typeFile || !agent.executable():
		return facts, ErrNoAgent
	}
	facts.AgentSize = min(agent.size(), f.blocks*f.block)
	h := sha256.New()
	if _, err := io.Copy(h, &reading{ctx: ctx, r: io.LimitReader(f.open(agent), facts.AgentSize), tell: func(int64) {}}); err != nil {
		return facts, fmt.Errorf("read the agent: %w", err)
	}
	facts.AgentSHA256 = hex.EncodeToString(h.Sum(nil))
	return facts, nil
}

// record reads what the file system says of itself, if it does.
func (f *reader) record(into *Record) error {
	i, err := f.find(recordPath)
	switch {
	case errors.Is(err, errNoFile):
		return nil
	case err != nil:
		return err
	case i.kind() != typeFile || i.size() > maxSmall:
		return nil
	}
	text, err := io.ReadAll(f.open(i))
	if err != nil {
		return err
	}
	_ = json.Unmarshal(text, into) // what is no record says nothing
	return nil
}

// Unpack writes a file system, which may be compressed, into out as it is. It
// leaves holes where there are only zeros.
func Unpack(ctx context.Context, path string, out *os.File) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // was only read
	in := bufio.NewReaderSize(&reading{ctx: ctx, r: f, tell: func(int64) {}}, 256<<10)
	r, closeReader, err := decompress(in)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer closeReader()
	to := &holes{file: out}
	if _, err := io.CopyBuffer(to, io.LimitReader(r, maxImage), make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("unpack %s: %w", path, err)
	}
	return out.Truncate(to.at) // the end may be a hole
}
