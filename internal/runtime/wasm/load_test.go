package wasm

import (
	"bytes"
	"context"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nex"
	"nex/internal/runtime"
)

func TestLoadRefuses(t *testing.T) {
	start := coded()
	for _, c := range []struct {
		name string
		code []byte
		want string
	}{
		{"empty", nil, "is empty"},
		{"text", []byte("(subject, payload) => payload"), "is not a WebAssembly module: it does not begin with \\0asm (invalid magic number)"},
		{"ELF", []byte("\x7fELF\x02\x01\x01"), "is not a WebAssembly module: it does not begin with \\0asm (invalid magic number)"},
		{"component", append([]byte("\x00asm\x0d\x00\x01\x00"), 1, 2, 3),
			"is a WebAssembly component; Nex runs WASI preview 1 modules: build for wasm32-wasip1"},
		{"other version", []byte("\x00asm\x02\x00\x00\x00"),
			"has an unknown WebAssembly version (02 00 00 00); Nex runs WASI preview 1 modules"},
		{"cut header", []byte("\x00asm\x01"), "is cut off after 5 bytes"},
		{"cut section", command(nil, trap...)[:20], "is cut off: its export section goes beyond the end of the file"},
		{"cut tail", guest.code[:len(guest.code)-100], "is cut off: its data section goes beyond the end of the file"},
		{"no sections", tiny(), "is neither a WASI command nor a reactor for Nex: it exports no _start function; " +
			"build a program with a main function for wasip1, or export nex_invoke"},
		{"_start with a parameter", bytes.Replace(command(nil), []byte{0x60, 0, 0}, []byte{0x60, 1, 0x7f, 0}, 1), ""},
		{"import", importing("env", "log"), "imports the function env.log, which does not exist here: " +
			"Nex offers WASI preview 1 (wasi_snapshot_preview1) and host services (nex) only"},
		{"import of an old WASI", importing("wasi_unstable", "fd_write"), "imports the function wasi_unstable.fd_write, " +
			"which does not exist here: Nex offers WASI preview 1 (wasi_snapshot_preview1) and host services (nex) only"},
		{"unknown WASI import", importing("wasi_snapshot_preview1", "fd_fly"), "imports the function " +
			"wasi_snapshot_preview1.fd_fly, which does not exist here: Nex offers WASI preview 1 (wasi_snapshot_preview1) and host services (nex) only"},
		{"import with another signature", importing("wasi_snapshot_preview1", "fd_write"), "cannot start: "},
		{"imported memory", tiny(section(typeSection, 1, 0x60, 0, 0), section(importSection, []byte("\x01\x01a\x01b\x02\x00\x01")...), section(functionSection, 1, 0),
			section(exportSection, []byte("\x01\x06_start\x00\x00")...), start), "imports the memory a.b: it must bring its own"},
		{"imported global", tiny(section(typeSection, 1, 0x60, 0, 0), section(importSection, []byte("\x01\x01a\x01b\x03\x7f\x00")...), section(functionSection, 1, 0),
			section(exportSection, []byte("\x01\x06_start\x00\x00")...), start), "cannot start: "},
		{"too much memory", command([][]byte{memorySized(2049)}), "needs 128.1 MiB of memory to start, its limit is 128 MiB"},
		{"too big a table", command([][]byte{section(tableSection, 1, 0x70, 0, 0x80, 0x80, 0x80, 1)}),
			"has a table of 2097152 entries; 1048576 are allowed"},
		{"shared memory", command([][]byte{section(memorySection, 1, 3, 1, 1)}), "has a memory section that is damaged or beyond what is supported"},
		{"damaged table", command([][]byte{section(tableSection, 1, 0x70)}), "has a table section that is damaged or beyond what is supported"},
		{"unknown section", command([][]byte{section(13, 0)}), "has a number 13 section that is damaged or beyond what is supported"},
		{"invalid code", command(nil, 0x6a), "is not a valid WebAssembly module: "},
		{"start section traps", tiny(section(typeSection, 1, 0x60, 0, 0), section(functionSection, 1, 0), section(exportSection, []byte("\x01\x06_start\x00\x00")...),
			section(startSection, 0), coded(trap...)), "cannot start: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(t.Context(), Options{Name: "x.wasm", Code: c.code, Log: func(slog.Level, string) {}})
			if nex.CodeOf(err) != nex.Invalid {
				t.Fatalf("error %v with code %q, want code invalid", err, nex.CodeOf(err))
			}
			text := err.Error()
			if !strings.HasPrefix(text, "x.wasm "+c.want) || strings.Contains(text, "\n") {
				t.Errorf("error %q, want one line that begins with %q", text, "x.wasm "+c.want)
			}
			if !strings.HasSuffix(c.want, ": ") && c.want != "" && text != "x.wasm "+c.want {
				t.Errorf("error %q, want %q", text, "x.wasm "+c.want)
			}
		})
	}
}

func TestLoadRefusesEnvironment(t *testing.T) {
	for _, env := range []map[string]string{{"": "x"}, {"A=B": "x"}, {"A\x00": "x"}, {"A": "x\x00"}} {
		o := Options{Code: command(nil), Env: env, Log: func(slog.Level, string) {}}
		if _, err := Load(t.Context(), o); nex.CodeOf(err) != nex.Invalid {
			t.Errorf("environment %q: error %v, want invalid", env, err)
		}
	}
}

func TestLoadNeedsLog(t *testing.T) {
	if _, err := Load(t.Context(), Options{Code: command(nil)}); err == nil {
		t.Error("loaded without a log")
	}
}

func TestLoadStopsAtContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := Behaving("echo")
	if _, err := Load(ctx, o); err == nil {
		t.Error("loaded under a context that is over")
	}
}

func TestNamedModuleRunsTwice(t *testing.T) {
	f := mustLoad(t, Options{Code: named(), Log: func(slog.Level, string) {}})
	for i := range 3 {
		if _, err := invoke(t, f, ""); err != nil {
			t.Errorf("call %d: %v", i+1, err)
		}
	}
}

func TestCacheDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "cache")
	o := Options{Code: command(nil), CacheDir: dir, Log: func(slog.Level, string) {}}
	for range 2 { // compiled, then from the cache
		f := mustLoad(t, o)
		if _, err := invoke(t, f, ""); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if goruntime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("cache directory has mode %v, want 0700", info.Mode().Perm())
	}
}

// Trouble with the cache is no reason to refuse a module.
func TestCacheDirThatCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log recorder
	f := mustLoad(t, Options{Code: command(nil), CacheDir: file, Log: log.log})
	if _, err := invoke(t, f, ""); err != nil {
		t.Error(err)
	}
	if got := log.all(); len(got) != 1 || !strings.HasPrefix(got[0], "WARN compiled code cannot be kept: ") {
		t.Errorf("log holds %q", got)
	}
}

// TestCacheDirDamaged damages each byte of a cached module's files in turn, in
// three ways, and cuts them: the module is compiled again.
func TestCacheDirDamaged(t *testing.T) {
	dir := t.TempDir()
	o := Options{Code: command(nil), CacheDir: dir, Log: func(slog.Level, string) {}}
	mustLoad(t, o)
	for _, path := range cacheFiles(t, dir) {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 1 + len(whole)/100 {
			damaged := bytes.Clone(whole)
			damaged[at] ^= byte(1 + at%255)
			if at%3 == 0 {
				damaged = damaged[:at]
			}
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := Load(t.Context(), o)
			if err != nil {
				t.Fatalf("byte %d of %s damaged: %v", at, filepath.Base(path), err)
			}
			if _, err := invoke(t, f, ""); err != nil {
				t.Errorf("byte %d of %s damaged: %v", at, filepath.Base(path), err)
			}
			if err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
			healed, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(healed, whole) {
				t.Fatalf("byte %d of %s damaged: not written again (%v)", at, filepath.Base(path), err)
			}
		}
	}
}

func TestCacheIsPruned(t *testing.T) {
	dir := t.TempDir()
	var entries []entry
	for n := range 4 {
		e, known, err := openEntry(dir, []byte{byte(n)})
		if err != nil || known {
			t.Fatal(known, err)
		}
		if err := os.Mkdir(e.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(e.dir, "code"), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := e.seal(); err != nil {
			t.Fatal(err)
		}
		old := time.Now().Add(time.Duration(n-10) * time.Hour)
		for _, path := range cacheFiles(t, e.dir) {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
		entries = append(entries, e)
	}
	if _, known, err := openEntry(dir, []byte{1}); err != nil || !known { // used now
		t.Fatal(known, err)
	}
	if err := prune(dir, 2100, entries[0]); err != nil {
		t.Fatal(err)
	}
	for n, want := range []bool{true, true, false, false} {
		if got := entries[n].verify(); got != want {
			t.Errorf("entry %d is kept: %v, want %v", n, got, want)
		}
	}
}

func cacheFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("files of the cache: %v, %v", files, err)
	}
	return files
}

// A leaked instance would keep its 8 MiB.
func TestInstancesAreFreed(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	f, err := Load(t.Context(), Options{Code: command([][]byte{memorySized(128)}), Log: func(slog.Level, string) {}})
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if _, err := invoke(t, f, ""); err != nil {
			t.Fatal(err)
		}
	}
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	if m.HeapAlloc > 240<<20 {
		t.Errorf("%d MiB in use after 60 calls of 8 MiB", m.HeapAlloc>>20)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := f.Close(t.Context()); err != nil {
		t.Errorf("second close: %v", err)
	}
	if _, err := f.Invoke(t.Context(), runtime.Trigger{Subject: "a"}); nex.CodeOf(err) != nex.Unavailable {
		t.Errorf("call after close: %v, want unavailable", err)
	}
}

func FuzzLoad(f *testing.F) {
	for _, code := range [][]byte{
		nil, []byte("\x00asm\x0d\x00\x01\x00"), tiny(), command(nil, trap...), named(),
		command([][]byte{section(tableSection, 1, 0x70, 0, 1), memorySized(1)}, grow...),
		command([][]byte{section(tableSection, 1, 0x70, 1, 1, 9)}, growTable...),
		importing("env", "log"), importing("wasi_snapshot_preview1", "sched_yield"),
	} {
		f.Add(code)
	}
	f.Fuzz(func(t *testing.T, code []byte) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		fn, err := Load(ctx, Options{Code: code, MemoryLimit: 16 << 20, Log: func(slog.Level, string) {}})
		if err != nil {
			return
		}
		_, _ = fn.Invoke(ctx, runtime.Trigger{Subject: "fuzz"}) // anything but a panic
		if err := fn.Close(ctx); err != nil {
			t.Error(err)
		}
	})
}

func FuzzConfine(f *testing.F) {
	f.Add(command([][]byte{section(tableSection, 1, 0x70, 0, 1), memorySized(1)}, grow...), uint64(1<<20))
	f.Add(named(), uint64(0))
	f.Fuzz(func(t *testing.T, code []byte, limit uint64) {
		once, err := confine(code, limit)
		if err != nil {
			return
		}
		twice, err := confine(once, limit)
		if err != nil || !bytes.Equal(once, twice) {
			t.Errorf("a confined module changes again: %x, then %x (%v)", once, twice, err)
		}
	})
}
