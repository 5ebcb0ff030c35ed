package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// platform is that of guests.
var platform = v1.Platform{OS: "linux", Architecture: "amd64"}

// maxLayers bounds the layers of an image.
const maxLayers = 1024

// pull finds an image in its registry, with the credentials that docker login or
// podman login left. Its layers are read later.
func pull(ctx context.Context, reference string) (v1.Image, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a file that is there nor the name of an image: %w", reference, err)
	}
	image, err := remote.Image(ref, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithPlatform(platform), remote.WithUserAgent("nex"))
	var refused *transport.Error
	switch {
	case errors.As(err, &refused) && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden):
		return nil, fmt.Errorf("%s refuses %s: %w (docker login or podman login leaves credentials that are used here; the name may be wrong, too)", ref.Context().RegistryStr(), ref, err)
	case err != nil:
		return nil, fmt.Errorf("pull %s: %w (without a way to the registry, name an archive that docker save or podman save wrote)", ref, err)
	}
	return image, nil
}

// pick returns the image of an index that is for guests. Indexes may hold others.
// Before a blob is read into memory, check is asked whether it has at most so many bytes.
func pick(index v1.ImageIndex, depth int, check func(v1.Hash, int64) (int64, error)) (v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	if depth > 4 {
		return nil, errors.New("image indexes in image indexes without end")
	}
	for _, d := range manifest.Manifests {
		if d.Platform != nil && !d.Platform.Satisfies(platform) {
			continue
		}
		if !d.MediaType.IsIndex() && !d.MediaType.IsImage() {
			continue
		}
		if _, err := check(d.Digest, maxIndex); err != nil {
			return nil, err
		}
		switch {
		case d.MediaType.IsIndex():
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			if image, err := pick(inner, depth+1, check); err == nil {
				return image, nil
			}
		case d.MediaType.IsImage():
			image, err := index.Image(d.Digest)
			if err != nil {
				return nil, err
			}
			got, err := image.Digest()
			if err == nil && got != d.Digest {
				err = fmt.Errorf("the manifest %s is not the one with that digest", d.Digest)
			}
			return image, err
		}
	}
	return nil, fmt.Errorf("there is no image for %s in it", platform)
}

// addImage puts the layers of an image into the tree, the lowest first, and
// returns its digest. Layers that come compressed are counted as they come.
func (t *tree) addImage(ctx context.Context, image v1.Image, compressed bool, progress func(string, int64, int64)) (string, error) {
	digest, err := image.Digest()
	if err != nil {
		return "", err
	}
	config, err := checkedConfig(image)
	if err != nil {
		return "", err
	}
	layers, err := image.Layers()
	switch {
	case err != nil:
		return "", err
	case len(layers) != len(config.RootFS.DiffIDs) || len(layers) > maxLayers:
		return "", fmt.Errorf("an image of %d layers, whose configuration knows %d (at most %d are read)", len(layers), len(config.RootFS.DiffIDs), maxLayers)
	}
	total := int64(0)
	for _, l := range layers {
		if compressed {
			size, err := l.Size()
			if err != nil {
				return "", err
			}
			total += size
		}
	}
	done := int64(0)
	for i, l := range layers {
		stage := fmt.Sprintf("unpack layer %d of %d", i+1, len(layers))
		open := l.Uncompressed
		if compressed {
			open = l.Compressed
		}
		n, err := t.addImageLayer(ctx, open, config.RootFS.DiffIDs[i], func(n int64) { progress(stage, done+n, total) })
		if err != nil {
			return "", fmt.Errorf("layer %d of the image: %w", i+1, err)
		}
		done += n
	}
	return digest.String(), nil
}

// checkedConfig returns the configuration of an image that is for guests.
func checkedConfig(image v1.Image) (*v1.ConfigFile, error) {
	manifest, err := image.Manifest()
	if err != nil {
		return nil, err
	}
	raw, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(raw); manifest.Config.Digest.Hex != hex.EncodeToString(sum[:]) {
		return nil, errors.New("the image's configuration is not the one with its digest")
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	if config.OS != "" && config.OS != platform.OS || config.Architecture != "" && config.Architecture != platform.Architecture {
		return nil, fmt.Errorf("the image is for %s/%s, and guests are %s", config.OS, config.Architecture, platform)
	}
	return config, nil
}

// addImageLayer unpacks a layer and compares it with its digest. It returns how
// many bytes it read, as they came.
func (t *tree) addImageLayer(ctx context.Context, open func() (io.ReadCloser, error), id v1.Hash, tell func(int64)) (int64, error) {
	body, err := open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = body.Close() }() // was only read
	in := &reading{ctx: ctx, r: body, tell: tell}
	r, closeReader, err := decompress(bufio.NewReaderSize(in, 256<<10))
	if err != nil {
		return 0, err
	}
	defer closeReader()
	sum := sha256.New()
	plain := io.TeeReader(r, sum)
	if err := t.addLayer(ctx, bufio.NewReaderSize(plain, 256<<10)); err != nil {
		return 0, err
	}
	// What is behind the archive's end counts for the digest.
	if _, err := io.Copy(io.Discard, io.LimitReader(plain, maxSpool)); err != nil {
		return 0, fmt.Errorf("read to the end: %w", err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); id.Algorithm != "sha256" || got != id.Hex {
		return 0, fmt.Errorf("its SHA-256 is %s, and the image says %s", got, id)
	}
	return in.done, nil
}
