package preflight

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"runtime"
	"strings"
	"time"
)

// Manifest says where what can be installed is downloaded from.
type Manifest struct {
	Artifacts []Artifact `json:"artifacts"`
}

// Artifact is one thing that can be downloaded. In its URL and Member {arch} is
// the processor as Go calls it, {machine} as Linux does, and {version} the
// version that is installed.
type Artifact struct {
	Name   string `json:"name"` // of the file as it is installed, as in "firecracker"
	URL    string `json:"url"`
	Member string `json:"member,omitempty"` // the file in the archive; "" where the URL is of the file itself, or of it with .gz
	// SHA256 is the digest of what is downloaded, in hex. Without one it is not
	// downloaded until somebody says what it must be.
	SHA256 string `json:"sha256,omitempty"`
	// MaxBytes bounds what is downloaded, and the file that comes of it; 0 is 1 GiB.
	MaxBytes int64 `json:"max_bytes,omitempty"`
}

const (
	defaultMaxBytes = 1 << 30
	maxManifest     = 1 << 20 // bytes
	maxSmall        = 100 << 20
)

// DefaultManifest has the releases of Firecracker and of the CNI plugins. Its
// artifacts have no digests: nobody who made this nex has held their bytes.
func DefaultManifest() Manifest {
	const (
		firecracker = "https://github.com/firecracker-microvm/firecracker/releases/download/v1.12.0/firecracker-v1.12.0-{machine}.tgz"
		inside      = "release-v1.12.0-{machine}/"
		plugins     = "https://github.com/containernetworking/plugins/releases/download/v1.6.2/cni-plugins-linux-{arch}-v1.6.2.tgz"
	)
	return Manifest{Artifacts: []Artifact{
		{Name: string(itemFirecracker), URL: firecracker, Member: inside + "firecracker-v1.12.0-{machine}", MaxBytes: maxSmall},
		{Name: string(itemJailer), URL: firecracker, Member: inside + "jailer-v1.12.0-{machine}", MaxBytes: maxSmall},
		{Name: string(itemHostLocal), URL: plugins, Member: "host-local", MaxBytes: maxSmall},
		{Name: string(itemPtp), URL: plugins, Member: "ptp", MaxBytes: maxSmall},
	}}
}

// LoadManifest reads a manifest from a file, or from a URL: https, or http on
// this host, since digests that anybody on the way can change are none.
func LoadManifest(ctx context.Context, from string) (Manifest, error) {
	var data []byte
	var err error
	if u, parseErr := url.Parse(from); parseErr == nil && (u.Scheme == "https" || u.Scheme == "http") {
		from = shown(from)
		data, err = getManifest(ctx, u)
	} else {
		data, err = readBounded(from, maxManifest)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	m, err := parseManifest(data)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest %s: %w", from, err)
	}
	return m, nil
}

func getManifest(ctx context.Context, u *url.URL) ([]byte, error) {
	if u.Scheme != "https" && !onThisHost(u) {
		return nil, fmt.Errorf("%s is neither https nor on this host: a manifest says what digests are right, and so nobody on the way may change it", shown(u.String()))
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, unnamed(err)
	}
	client := http.Client{Transport: newTransport(), CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 5 || r.URL.Scheme != "https" && !onThisHost(r.URL) {
			return fmt.Errorf("it sends on to %s", shown(r.URL.String()))
		}
		return nil
	}}
	defer client.CloseIdleConnections()
	reply, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown(u.String()), unnamed(err))
	}
	defer func() { _ = reply.Body.Close() }() // was read
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", shown(u.String()), reply.Status)
	}
	data, err := io.ReadAll(io.LimitReader(reply.Body, maxManifest+1))
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%s has more than %d bytes", shown(u.String()), maxManifest)
	}
	return data, err
}

func onThisHost(u *url.URL) bool {
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func parseManifest(data []byte) (m Manifest, err error) {
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Manifest{}, errors.New("there is more after it")
	}
	seen := map[string]bool{}
	for _, a := range m.Artifacts {
		if err := a.validate(); err != nil {
			return Manifest{}, fmt.Errorf("artifact %.60q: %w", a.Name, err)
		}
		if seen[a.Name] {
			return Manifest{}, fmt.Errorf("artifact %q is there twice", a.Name)
		}
		seen[a.Name] = true
	}
	return m, nil
}

func (a Artifact) validate() error {
	u, err := url.Parse(a.URL)
	switch {
	case !installable(item(a.Name)):
		return errors.New("it is nothing that is installed from a manifest; there are " + strings.Join(artifactNames(), ", "))
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return errors.New("its url must be an http or https URL")
	case a.SHA256 != "" && !isDigest(a.SHA256):
		return errors.New("its sha256 is no SHA-256 in hex")
	case a.MaxBytes < 0:
		return errors.New("its max_bytes is negative")
	case a.Member != "" && !isArchive(a.URL):
		return errors.New("it has a member, and its url ends with neither .tgz nor .tar.gz")
	case a.Member == "" && isArchive(a.URL):
		return errors.New("it is an archive: say which member it is")
	}
	return nil
}

// downloaded are the items that can come from a manifest.
var downloaded = []item{itemFirecracker, itemJailer, itemHostLocal, itemPtp, itemKernel, itemInitramfs, itemRootfs, itemAgent}

func installable(name item) bool {
	for _, i := range downloaded {
		if i == name {
			return true
		}
	}
	return false
}

func artifactNames() (names []string) {
	for _, i := range downloaded {
		names = append(names, string(i))
	}
	return names
}

// CheckDigest refuses what is no SHA-256 in hex.
func CheckDigest(s string) error {
	if !isDigest(s) {
		return errors.New("that is no SHA-256 in hex")
	}
	return nil
}

func isDigest(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == 32
}

func isArchive(name string) bool {
	return strings.HasSuffix(name, ".tgz") || strings.HasSuffix(name, ".tar.gz")
}

// of returns the artifact of an item, with what stands for something filled in.
func (m Manifest) of(name item, version string) (Artifact, bool) {
	machines := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}
	fill := strings.NewReplacer("{arch}", runtime.GOARCH, "{machine}", machines[runtime.GOARCH], "{version}", version)
	for _, a := range m.Artifacts {
		if a.Name == string(name) {
			a.URL, a.Member = fill.Replace(a.URL), fill.Replace(a.Member)
			if a.MaxBytes == 0 {
				a.MaxBytes = defaultMaxBytes
			}
			return a, true
		}
	}
	return Artifact{}, false
}

// base is the name of the file that an artifact is downloaded as.
func (a Artifact) base() string {
	if u, err := url.Parse(a.URL); err == nil {
		return path.Base(u.Path)
	}
	return path.Base(a.URL)
}
