// Package rootfs builds the root file systems of guests: it takes an OCI image or
// a tar archive, or starts from nothing, adds the agent and what a guest needs, and
// writes an ext4 file system, as any user, without Docker and without mounting
// anything. Equal inputs make equal bytes. Functions may be called concurrently.
package rootfs

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"nex/internal/undo"
)

// FileName is the name of a file system in a directory.
const FileName = "rootfs.ext4"

// DefaultSize is the size of a file system unless another is asked for, in bytes.
const DefaultSize = 150 << 20

// Options say what to build.
type Options struct {
	// Base is what to start from: [Scratch] or "", a reference to an image in a
	// registry, or a path: of an archive as docker save writes it, an OCI archive, an
	// OCI layout, or a tar archive of a root directory.
	Base  string
	Agent string // path of the agent for guests; required
	// AgentVersion is what the image says of its agent, "" if that is not known.
	AgentVersion string
	Script       string // path of a script that guests run at boot, or ""
	// Run are build steps: commands for /bin/sh of the image, which are run in it,
	// confined, as its root. This takes root.
	Run        []string
	RunTimeout time.Duration // for each of them; 0 is [DefaultRunTimeout]
	RunNetwork bool          // they have the host's network, else none
	Printed    io.Writer     // of what they print; may be nil
	Sum        bool          // say the SHA-256 of what was written
	Size       int64         // of the file system, in bytes; 0 is [DefaultSize]
	// Output is the path of the file to write, which is replaced when the whole of
	// the new one is there; of a directory, for [FileName] in it.
	Output string
	Temp   string // directory for temporary files, which are gone in the end; "" is the usual one
	// Progress, if set, is told what is being done, and how many bytes of how many
	// are done; total is 0 when that is not known.
	Progress func(stage string, done, total int64)
}

// Result is what was built.
type Result struct {
	Path   string `json:"path"`
	Base   string `json:"base"`             // as it was named
	Digest string `json:"digest,omitempty"` // of the base, if it is an image
	Size   int64  `json:"size"`             // bytes of the file system
	Free   int64  `json:"free"`             // bytes of it that nothing uses
	Start  string `json:"start"`            // what starts the agent: ByInit, ByOpenRC or BySystemd
	Files  int    `json:"files"`            // names in it
	User   string `json:"user,omitempty"`   // of the base, for which nex is a second name, as both have one number
	SHA256 string `json:"sha256"`           // of the file that was written
}

// Build writes a file system and puts it in place when it is whole.
func Build(ctx context.Context, o Options) (Result, error) {
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	if len(o.Run) > 0 {
		if err := refuseSteps(); err != nil {
			return Result{}, err
		}
	}
	var err error
	if o.Output, err = outputFile(o.Output); err != nil {
		return Result{}, err
	}
	spool, err := newSpool(o.Temp)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = spool.Close() }() // a temporary file
	temp, err := os.MkdirTemp(o.Temp, "nex-rootfs-*")
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = os.RemoveAll(temp) }() // temporary
	t := newTree(spool)
	defer t.close()
	digest, err := t.addBase(ctx, o, temp)
	if err != nil {
		return Result{}, err
	}
	if len(o.Run) > 0 {
		if err := t.runSteps(ctx, o, temp); err != nil {
			return Result{}, err
		}
	}
	start, err := t.addOwn(o)
	if err != nil {
		return Result{}, err
	}
	user, err := t.namesake()
	if err != nil {
		return Result{}, err
	}
	r := Result{User: user, Path: o.Output, Start: start, Base: cmp.Or(o.Base, Scratch), Digest: digest}
	if err := t.addRecord(Record{AgentVersion: o.AgentVersion, Base: baseName(r.Base), Digest: digest, Start: start}); err != nil {
		return Result{}, err
	}
	err = t.store(ctx, o, &r)
	return r, err
}

// outputFile returns the path of the file that is written for an output, and
// refuses what a file could not replace before any work is done.
func outputFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, FileName)
		info, err = os.Stat(path)
	}
	if err == nil && !info.Mode().IsRegular() {
		return "", fmt.Errorf("the output %s is there and is no file: name another one", path)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return "", fmt.Errorf("the output %s is in no directory that is there: make %s first", path, filepath.Dir(path))
	}
	return path, nil
}

// addRecord adds what the image is made of.
func (t *tree) addRecord(r Record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return t.write(recordPath, 0o644, append(text, '\n'))
}

// baseName leaves out in which directory a base was, which says nothing where the
// image is used.
func baseName(base string) string {
	if _, err := os.Stat(base); err == nil {
		return filepath.Base(base)
	}
	return base
}

// addOwn adds what Options name to the tree.
func (t *tree) addOwn(o Options) (start string, err error) {
	if err := CheckAgent(o.Agent); err != nil {
		return "", err
	}
	agent, err := os.Open(o.Agent)
	if err != nil {
		return "", err
	}
	defer func() { _ = agent.Close() }() // was only read
	info, err := agent.Stat()
	if err != nil {
		return "", err
	}
	var script []byte
	if o.Script != "" {
		if script, err = readScript(o.Script); err != nil {
			return "", err
		}
	}
	return t.furnish(agent, info.Size(), script)
}

func readScript(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("boot script: %w", err)
	case !info.Mode().IsRegular() || info.Size() > maxSmall:
		return nil, fmt.Errorf("boot script %s is not a file of at most %d bytes", path, maxSmall)
	}
	script, err := os.ReadFile(path)
	if err == nil && (len(script) < 2 || string(script[:2]) != "#!") {
		return nil, fmt.Errorf("boot script %s does not begin with #! and the program that runs it, as in #!/bin/sh", path)
	}
	return script, err
}

// store writes the file system beside the place where it belongs, and moves it
// there when it is whole.
func (t *tree) store(ctx context.Context, o Options, r *Result) error {
	var u undo.Stack
	defer u.Unwind()
	out, err := t.image(ctx, &u, o)
	if err != nil {
		return err
	}
	_ = t.each(func(string, *node) error { r.Files++; return nil }) // returns nil, as the function does
	fs, err := openExt4(out)
	if err != nil {
		return err
	}
	r.Size, r.Free = fs.blocks*fs.block, fs.free*fs.block
	if strings.HasSuffix(o.Output, ".gz") {
		if out, err = compress(ctx, &u, o, out); err != nil {
			return err
		}
	}
	if o.Sum {
		o.Progress("check sum", 0, 0)
		if r.SHA256, err = digest(ctx, out); err != nil {
			return err
		}
	}
	if err := errors.Join(out.Chmod(0o644), out.Sync()); err != nil {
		return fmt.Errorf("write %s: %w", o.Output, err)
	}
	if err := os.Rename(out.Name(), o.Output); err != nil {
		return fmt.Errorf("put the file system in place: %w", err)
	}
	dir, err := os.Open(filepath.Dir(o.Output))
	if err != nil {
		return err
	}
	_ = dir.Sync() // makes the name last, where a directory can be synced
	return dir.Close()
}

// image writes the file system to a temporary file beside the output.
func (t *tree) image(ctx context.Context, u *undo.Stack, o Options) (*os.File, error) {
	out, err := temporary(u, o.Output)
	if err != nil {
		return nil, err
	}
	total := t.spool.size
	return out, t.writeExt4(ctx, out, o.Size, func(done int64) { o.Progress("write files", min(done, total), total) })
}

// temporary makes a file beside path that u closes and, if it still has its
// name, removes.
func temporary(u *undo.Stack, path string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	u.Push(func() { _, _ = f.Close(), os.Remove(f.Name()) }) // was synced, or is of no use
	return f, nil
}

// compress writes the gzip form of a file.
func compress(ctx context.Context, u *undo.Stack, o Options, raw *os.File) (*os.File, error) {
	out, err := temporary(u, o.Output)
	if err != nil {
		return nil, err
	}
	if _, err := raw.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	zip := gzip.NewWriter(out)
	in := &reading{ctx: ctx, r: raw, tell: func(n int64) { o.Progress("compress", n, o.Size) }}
	if _, err := io.CopyBuffer(zip, in, make([]byte, 1<<20)); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	if err := zip.Close(); err != nil {
		return nil, fmt.Errorf("compress: %w", err)
	}
	return out, nil
}

// digest returns the SHA-256 of a file, in hex.
func digest(ctx context.Context, f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, &reading{ctx: ctx, r: f, tell: func(int64) {}}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// reading is a reader that ends with its context, and tells how far it is.
type reading struct {
	ctx  context.Context
	r    io.Reader
	done int64
	tell func(done int64)
}

func (r *reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.r.Read(p)
	r.done += int64(n)
	r.tell(r.done)
	return n, err
}
