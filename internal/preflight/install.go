package preflight

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"nex/internal/machine"
)

// Installer installs what a host is missing.
type Installer struct {
	Host     *Host
	Manifest Manifest
	From     string            // a directory to take files from instead of downloading any
	SHA256   map[string]string // what digests must be, by the name of an artifact or of the file that is downloaded
	Version  string            // what {version} stands for in the manifest
	Progress func(name string, have, of int64)

	fetcher *fetcher
	lock    *flock.Flock // held since the first step
}

// Step is something that can be done about a finding.
type Step struct {
	Text string // what will be done, for who is asked to agree
	Adds bool   // it makes a file that is not there
	do   func(context.Context) (Installed, error)
}

// Step returns what can be done about a finding, and an error if that is nothing.
func (i *Installer) Step(f Finding) (Step, error) {
	switch f.item {
	case "":
		return Step{}, errors.New("this is not for nex to install")
	case itemConflist:
		return i.writeConflist()
	}
	to := i.target(f.item)
	if i.From != "" {
		return i.copyFrom(f.item, to)
	}
	return i.download(f.item, to)
}

// Install does a step, and writes down what it did.
func (i *Installer) Install(ctx context.Context, s Step) error {
	if err := i.alone(); err != nil {
		return err
	}
	done, err := s.do(ctx)
	if err != nil {
		return err
	}
	done.At = time.Now().UTC().Truncate(time.Second)
	return record(i.Host.StateDir, done)
}

// alone keeps others from installing for the same node until Close.
func (i *Installer) alone() error {
	if i.lock != nil {
		return nil
	}
	if err := os.MkdirAll(i.Host.StateDir, 0o700); err != nil {
		return err
	}
	lock := flock.New(filepath.Join(i.Host.StateDir, lockName), flock.SetPermissions(0o600))
	locked, err := lock.TryLock()
	switch {
	case err != nil:
		return fmt.Errorf("lock the state directory for what is installed: %w", err)
	case !locked:
		return errors.Join(fmt.Errorf("%w into %s: try again when it is done", ErrBusy, i.Host.StateDir), lock.Close())
	}
	i.lock = lock
	return nil
}

// ErrBusy is the error of an installation while there is another one.
var ErrBusy = errors.New("another nex node preflight is installing")

// lockName is the file in the state directory that one installation at a time holds.
const lockName = "preflight.lock"

// Close removes what was downloaded and is not needed any more, and lets others
// install.
func (i *Installer) Close() error {
	var errs []error
	if i.fetcher != nil {
		i.fetcher.client.CloseIdleConnections()
		errs = append(errs, i.fetcher.forget())
	}
	if i.lock != nil {
		errs = append(errs, i.lock.Close())
		i.lock = nil
	}
	return errors.Join(errs...)
}

// CheckNames refuses digests for names that no artifact and no file has: somebody
// would wait for one to be held against something.
func (i *Installer) CheckNames() error {
	names := artifactNames()
	for _, a := range i.Manifest.Artifacts {
		if filled, ok := i.Manifest.of(item(a.Name), i.Version); ok {
			names = append(names, filled.base())
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	for _, name := range slices.Sorted(maps.Keys(i.SHA256)) {
		if !slices.Contains(names, name) && !(i.From != "" && slices.Contains(names, strings.TrimSuffix(name, ".gz"))) {
			return fmt.Errorf("--sha256 %s: there is nothing of that name; there are %s", name, strings.Join(names, ", "))
		}
	}
	return nil
}

// target is the path that an item is installed at.
func (i *Installer) target(name item) string {
	s, state := i.Host.Settings, i.Host.StateDir
	kernel, initramfs, rootfs := s.Image(state)
	switch name {
	case itemHostLocal, itemPtp:
		return filepath.Join(s.PluginDirs(state)[0], string(name))
	case itemKernel:
		return kernel
	case itemInitramfs:
		return initramfs
	case itemRootfs:
		return rootfs
	case itemAgent:
		if s.AgentPath != "" {
			return s.AgentPath
		}
		return filepath.Join(filepath.Dir(i.Host.Program), machine.AgentName())
	}
	return filepath.Join(s.ProgramDirs(state)[0], string(name))
}

// isNew reports whether nothing is at a path yet.
func isNew(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// mode is what may be done with an item. Users that VMMs run as read the files of
// images.
func mode(name item) fs.FileMode {
	if name == itemKernel || name == itemInitramfs || name == itemRootfs {
		return 0o644
	}
	return 0o755
}

func (i *Installer) writeConflist() (Step, error) {
	path := i.Host.Settings.CNI.Conflist()
	if _, err := os.Lstat(path); err == nil {
		return Step{}, fmt.Errorf("%s is there, and is not overwritten: remove it, or name another network in \"cni.network_name\"", path)
	}
	return Step{Text: "write " + path, Adds: true, do: func(context.Context) (Installed, error) {
		data := newConflist(i.Host.Settings.CNI, i.Host.StateDir)
		return put(path, 0o644, "nex", func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		})
	}}, nil
}

// digest is what the digest of what is downloaded as an artifact must be.
func (i *Installer) digest(a Artifact) string {
	for _, name := range []string{a.Name, a.base()} {
		if d := i.SHA256[name]; d != "" {
			return d
		}
	}
	return a.SHA256
}

func (i *Installer) download(name item, to string) (Step, error) {
	a, ok := i.Manifest.of(name, i.Version)
	if !ok {
		return Step{}, fmt.Errorf("the manifest does not say where %s comes from: copy it with --from DIR, or name a --manifest that does", name)
	}
	digest := i.digest(a)
	if digest == "" {
		return Step{}, fmt.Errorf("%s is not downloaded: nobody has said what its digest must be. Find out from whom you trust, and say --sha256 %s=HEX", shown(a.URL), name)
	}
	return Step{Text: fmt.Sprintf("download %s (SHA-256 %s) to %s", shown(a.URL), strings.ToLower(digest), to), Adds: isNew(to), do: func(ctx context.Context) (Installed, error) {
		if i.fetcher == nil {
			i.fetcher = newFetcher(filepath.Join(i.Host.StateDir, "downloads"), nil)
		}
		i.fetcher.progress = func(have, of int64) {
			if i.Progress != nil {
				i.Progress(string(name), have, of)
			}
		}
		file, err := i.fetcher.fetch(ctx, a.URL, digest, a.MaxBytes)
		if err != nil {
			return Installed{}, err
		}
		return putFrom(ctx, file, a, to, mode(name), shown(a.URL))
	}}, nil
}

// putFrom installs what is in a file that was downloaded, or is there, as an
// artifact.
func putFrom(ctx context.Context, file string, a Artifact, to string, mode fs.FileMode, source string) (Installed, error) {
	f, err := os.Open(file)
	if err != nil {
		return Installed{}, err
	}
	defer func() { _ = f.Close() }() // was only read
	return put(to, mode, source, func(w io.Writer) error { return unpack(w, contextReader{ctx, f}, a.base(), a.Member, a.MaxBytes) })
}

// put writes a file that is there as a whole or not at all.
func put(to string, mode fs.FileMode, source string, write func(io.Writer) error) (Installed, error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return Installed{}, err
	}
	h := sha256.New()
	var size int64
	err := replaceFile(to, mode, func(f *os.File) (err error) {
		if err := write(io.MultiWriter(f, h)); err != nil {
			return err
		}
		size, err = f.Seek(0, io.SeekCurrent)
		return err
	})
	return Installed{Path: to, SHA256: hex.EncodeToString(h.Sum(nil)), Size: size, Source: source}, err
}

// copyFrom takes an item from a directory, where it is under its own name, with
// .gz, or in the archive that would be downloaded.
func (i *Installer) copyFrom(name item, to string) (Step, error) {
	sums, err := readSums(filepath.Join(i.From, "SHA256SUMS"))
	if err != nil {
		return Step{}, err
	}
	candidates := []Artifact{{Name: string(name), URL: string(name)}, {Name: string(name), URL: string(name) + ".gz"}}
	if a, ok := i.Manifest.of(name, i.Version); ok {
		candidates = append(candidates, a)
	}
	for _, a := range candidates {
		path := filepath.Join(i.From, a.base())
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			continue
		}
		a.MaxBytes = max(a.MaxBytes, defaultMaxBytes)
		digest := i.digest(a)
		if sums != nil {
			listed, ok := sums[a.base()]
			if !ok {
				return Step{}, fmt.Errorf("%s does not list %s", filepath.Join(i.From, "SHA256SUMS"), a.base())
			}
			digest = listed
		}
		return Step{Text: "copy " + path + " to " + to, Adds: isNew(to), do: func(ctx context.Context) (Installed, error) {
			return i.copyChecked(ctx, path, a, digest, to)
		}}, nil
	}
	var names []string
	for _, a := range candidates {
		names = append(names, a.base())
	}
	return Step{}, fmt.Errorf("%s has no %s", i.From, strings.Join(slices.Compact(names), ", nor "))
}

// copyChecked installs a file whose digest is right, if it must be a certain one.
func (i *Installer) copyChecked(ctx context.Context, path string, a Artifact, digest, to string) (Installed, error) {
	if digest != "" {
		got, _, err := digestOf(ctx, path)
		if err != nil {
			return Installed{}, err
		}
		if !strings.EqualFold(got, digest) {
			return Installed{}, fmt.Errorf("%s: %w: it must be %s and is %s", path, errWrong, digest, got)
		}
	}
	done, err := putFrom(ctx, path, a, to, mode(item(a.Name)), path)
	if err != nil || item(a.Name) != itemRootfs {
		return done, err
	}
	// What nex image build has to say of it comes along.
	if said, err := readBounded(filepath.Join(i.From, "image.json"), 1<<20); err == nil {
		_, err := put(filepath.Join(filepath.Dir(to), "image.json"), 0o644, path, func(w io.Writer) error {
			_, err := w.Write(said)
			return err
		})
		return done, err
	}
	return done, nil
}

// readSums reads a file as sha256sum writes it: digests by name. Nil means that
// there is no such file.
func readSums(path string) (map[string]string, error) {
	data, err := readBounded(path, 1<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sums := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(string(data)))
	for lines.Scan() {
		digest, name, ok := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if digest == "" {
			continue
		}
		name = strings.TrimPrefix(strings.TrimPrefix(strings.TrimLeft(name, " "), "*"), "./")
		if !ok || !isDigest(digest) || name == "" {
			return nil, fmt.Errorf("%s: %.80q is no line of sha256sum", path, lines.Text())
		}
		sums[name] = digest
	}
	return sums, lines.Err()
}

// Installable reports whether it is of a kind that [Installer] can do something
// about.
func (f Finding) Installable() bool { return f.item != "" }
