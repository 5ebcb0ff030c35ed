package preflight

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"strings"
	"testing"
)

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// tgz makes an archive of entries, of which those without data are symbolic links
// to /etc/passwd.
func tgz(t testing.TB, entries ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e[0], Mode: 0o755, Size: int64(len(e[1])), Typeflag: tar.TypeReg}
		if e[1] == "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, "/etc/passwd"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return gzipped(t, b.Bytes())
}

func TestUnpack(t *testing.T) {
	archive := tgz(t, [2]string{"../../etc/cron.d/evil", "evil"}, [2]string{"./dir/firecracker", "program"}, [2]string{"link", ""}, [2]string{"empty", ""})
	for name, c := range map[string]struct {
		data         []byte
		file, member string
		limit        int64
		want, err    string
	}{
		"plain":            {[]byte("hello"), "vmlinux", "", 100, "hello", ""},
		"plain too large":  {[]byte("hello"), "vmlinux", "", 4, "", "larger"},
		"plain empty":      {nil, "vmlinux", "", 4, "", "empty"},
		"gz":               {gzipped(t, []byte("hello")), "rootfs.ext4.gz", "", 5, "hello", ""},
		"gz bomb":          {gzipped(t, make([]byte, 1<<20)), "rootfs.ext4.gz", "", 1000, "", "larger"},
		"no gz":            {[]byte("hello"), "rootfs.ext4.gz", "", 5, "", "unpack rootfs.ext4.gz"},
		"cut gz":           {gzipped(t, []byte("hello"))[:20], "rootfs.ext4.gz", "", 5, "", "unexpected EOF"},
		"member":           {archive, "fc.tgz", "dir/firecracker", 100, "program", ""},
		"member too large": {archive, "fc.tar.gz", "dir/firecracker", 3, "", "larger"},
		"no member":        {archive, "fc.tgz", "dir/jailer", 100, "", "has no dir/jailer"},
		"a link":           {archive, "fc.tgz", "link", 100, "", "is no file"},
		"cut archive":      {archive[:len(archive)/2], "fc.tgz", "dir/firecracker", 100, "", "unpack archive"},
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			err := unpack(&got, bytes.NewReader(c.data), c.file, c.member, c.limit)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || got.String() != c.want {
				t.Errorf("got %q, %v; want %q", got.String(), err, c.want)
			}
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tgz(f, [2]string{"a", "data"}, [2]string{"../b", "x"}), "a.tgz", "a")
	f.Add(gzipped(f, []byte("data")), "a.gz", "")
	f.Add([]byte("data"), "a", "")
	f.Fuzz(func(t *testing.T, data []byte, name, member string) {
		const limit = 1 << 16
		var got bytes.Buffer
		if err := unpack(&got, bytes.NewReader(data), name, member, limit); err == nil && (got.Len() == 0 || got.Len() > limit) {
			t.Errorf("%d bytes of %q", got.Len(), name)
		}
		if got.Len() > limit+1 {
			t.Errorf("wrote %d bytes", got.Len())
		}
	})
}
