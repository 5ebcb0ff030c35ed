package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"nex/internal/nextest"
)

// BenchmarkBuild compares a build of a file system of the usual size, from a tar
// archive, with what mkfs.ext4 makes of the same files in a directory, each in a process of its
// own. A process's peak of memory counts from that of the one which started it on,
// so this one stays small.
func BenchmarkBuild(b *testing.B) {
	mkfs, agent := nextest.Program(b, "mkfs.ext4"), nextest.StaticAgent(b)
	dir := b.TempDir()
	files, base, out := filepath.Join(dir, "files"), filepath.Join(dir, "base.tar"), filepath.Join(dir, "out.ext4")
	fill(b, files, base)
	copyFile(b, agent, filepath.Join(files, AgentPath))
	programs := map[string]func() *exec.Cmd{
		"nex": func() *exec.Cmd {
			return builder(b, "022", input{Base: base, Agent: agent, Output: out, Size: DefaultSize, NoSum: true})
		},
		"mkfs.ext4": func() *exec.Cmd {
			return exec.Command(mkfs, "-q", "-F", "-d", files, out, fmt.Sprintf("%dk", DefaultSize>>10))
		},
	}
	for _, name := range []string{"nex", "mkfs.ext4"} {
		b.Run(name, func(b *testing.B) {
			peak := int64(0)
			for b.Loop() {
				cmd := programs[name]()
				if text, err := cmd.CombinedOutput(); err != nil {
					b.Fatalf("%v\n%s", err, text)
				}
				peak = max(peak, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) // KiB
				b.StopTimer()
				if err := os.Remove(out); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(peak)/1024, "MiB-peak")
		})
	}
}

// fill makes a directory of 1,500 files, 100 MiB together, and an archive of it.
func fill(b *testing.B, dir, archive string) {
	b.Helper()
	source := rand.NewChaCha8([32]byte{1})
	buffer := make([]byte, 100<<20/1500)
	for i := range 1500 {
		name := filepath.Join(dir, fmt.Sprintf("srv/%02d/%d", i%40, i))
		_, _ = source.Read(buffer) // returns no error
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, buffer, 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	f, err := os.Create(archive)
	if err != nil {
		b.Fatal(err)
	}
	w := tar.NewWriter(f)
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = io.Copy(w, bytes.NewReader(data))
		return err
	})
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		b.Fatal(err)
	}
}

// copyFile makes a directory have what is in a file, too.
func copyFile(b *testing.B, from, to string) {
	b.Helper()
	data, err := os.Open(from)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = data.Close() }() // was only read
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		b.Fatal(err)
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(out, data)
	if err := errors.Join(err, out.Close()); err != nil {
		b.Fatal(err)
	}
}
