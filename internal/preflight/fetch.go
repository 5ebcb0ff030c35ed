package preflight

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// fetcher downloads files into a directory, under the name of the digest that
// each must have: what is already there of one is not asked for again.
type fetcher struct {
	dir      string
	client   *http.Client
	whole    time.Duration // that one file may take
	silence  time.Duration // that a server may take for the next piece
	tries    int           // in a row that brought nothing
	pause    time.Duration // before another try, twice as long after each that brought nothing
	progress func(have, of int64)
}

func newFetcher(dir string, progress func(have, of int64)) *fetcher {
	return &fetcher{dir: dir, client: &http.Client{Transport: newTransport()}, whole: 30 * time.Minute, silence: 30 * time.Second, tries: 4, pause: time.Second, progress: progress}
}

// errTooBig and errWrong are what is not tried again.
var (
	errTooBig = errors.New("it is larger than it may be")
	errWrong  = errors.New("the digest is another one")
)

// fetch returns the path of a file that has the digest and at most limit bytes.
func (f *fetcher) fetch(ctx context.Context, address, digest string, limit int64) (string, error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return "", err
	}
	done := filepath.Join(f.dir, strings.ToLower(digest))
	if got, _, err := digestOf(ctx, done); err == nil && strings.EqualFold(got, digest) {
		return done, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.whole, fmt.Errorf("it took more than %v", f.whole))
	defer cancel()
	part := done + ".part"
	if err := f.all(ctx, address, part, limit); err != nil {
		return "", fmt.Errorf("download %s: %w", shown(address), cause(ctx, err))
	}
	got, _, err := digestOf(ctx, part)
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(got, digest) {
		return "", errors.Join(fmt.Errorf("download %s: %w: it must be %s and is %s", shown(address), errWrong, digest, got), os.Remove(part))
	}
	return done, os.Rename(part, done)
}

// shown is a URL for people: without what may let somebody in, which may be its user,
// its password and its query.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(not a URL)"
	}
	bare := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if u.RawQuery != "" {
		return bare.String() + "?…"
	}
	return bare.String()
}

// transport refuses to be sent on to what is no URL: net/http tells of it in full, with
// what may be secret in it.
type transport struct{ *http.Transport }

func newTransport() transport {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return transport{t.Clone()}
	}
	return transport{&http.Transport{Proxy: http.ProxyFromEnvironment}}
}

// RoundTrip implements [http.RoundTripper].
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	reply, err := t.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if _, err := url.Parse(reply.Header.Get("Location")); err != nil {
		_ = reply.Body.Close() // is not read
		return nil, errors.New("it sends on to something that is no URL")
	}
	return reply, nil
}

// unnamed is an error without the URL that it is about, which may be one that somebody
// was sent on to.
func unnamed(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// cause is why ctx has ended, if it has, else err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// all fills a file, in as many answers as it takes as long as each brings
// something.
func (f *fetcher) all(ctx context.Context, address, part string, limit int64) error {
	file, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // was synced
	for vain := 0; ; {
		have, err := file.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		err = f.some(ctx, address, file, have, limit)
		if err == nil {
			return file.Sync()
		}
		if errors.Is(err, errTooBig) {
			return errors.Join(err, os.Remove(part))
		}
		now, sizeErr := file.Seek(0, io.SeekEnd)
		if sizeErr != nil {
			return sizeErr
		}
		if vain++; now > have {
			vain = 0
		}
		var refused refusedError
		if vain >= f.tries || errors.As(err, &refused) || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(f.pause << vain):
		case <-ctx.Done():
			return err
		}
	}
}

// refusedError is an answer that will be no other if it is asked for again.
type refusedError struct{ status string }

func (r refusedError) Error() string { return "the server answers " + r.status }

// some asks once for what is missing, and appends what comes.
func (f *fetcher) some(ctx context.Context, address string, file *os.File, have, limit int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(f.silence, func() { cancel(fmt.Errorf("the server said nothing for %v", f.silence)) })
	defer watch.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return unnamed(err)
	}
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	reply, err := f.client.Do(req)
	if err != nil {
		return cause(ctx, unnamed(err))
	}
	defer func() { _ = reply.Body.Close() }() // was read
	if have, err = begin(reply, file, have); err != nil {
		return err
	}
	whole := have + reply.ContentLength
	if reply.ContentLength < 0 {
		whole = 0
	}
	if whole > limit {
		return fmt.Errorf("%w: it has %d bytes, and %d are the most", errTooBig, whole, limit)
	}
	buffer := make([]byte, 256<<10)
	for {
		n, err := reply.Body.Read(buffer)
		if n > 0 {
			watch.Reset(f.silence)
			if have += int64(n); have > limit {
				return fmt.Errorf("%w: %d bytes are the most", errTooBig, limit)
			}
			if _, err := file.Write(buffer[:n]); err != nil {
				return err
			}
			f.progress(have, whole)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return cause(ctx, err)
		}
	}
}

// begin sees where the answer's body belongs in the file, and returns it.
func begin(reply *http.Response, file *os.File, have int64) (int64, error) {
	switch reply.StatusCode {
	case http.StatusPartialContent:
		first, _, _ := strings.Cut(strings.TrimPrefix(reply.Header.Get("Content-Range"), "bytes "), "-")
		if at, err := strconv.ParseInt(first, 10, 64); err == nil && at == have {
			return have, nil
		}
		return 0, errors.Join(errors.New("the server answers with another part than it was asked for"), file.Truncate(0))
	case http.StatusRequestedRangeNotSatisfiable: // there is no more, or it is another file now
		if _, size, ok := strings.Cut(reply.Header.Get("Content-Range"), "*/"); ok && size == strconv.FormatInt(have, 10) {
			reply.Body = http.NoBody
			reply.ContentLength = 0
			return have, nil
		}
		return 0, errors.Join(errors.New("the server has less than was downloaded"), file.Truncate(0))
	case http.StatusOK: // from the beginning, whatever it was asked for
		if err := file.Truncate(0); err != nil {
			return 0, err
		}
		_, err := file.Seek(0, io.SeekStart)
		return 0, err
	}
	if reply.StatusCode >= 500 || reply.StatusCode == http.StatusTooManyRequests {
		return 0, errors.New("the server answers " + reply.Status)
	}
	return 0, refusedError{reply.Status}
}

// forget removes what was downloaded to the end.
func (f *fetcher) forget() error {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if isDigest(e.Name()) {
			errs = append(errs, os.Remove(filepath.Join(f.dir, e.Name())))
		}
	}
	_ = os.Remove(f.dir) // it stays if there is something to go on with
	return errors.Join(errs...)
}

// digestOf returns the SHA-256 of a file, in hex, and its size.
func digestOf(ctx context.Context, path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = f.Close() }() // was only read
	h := sha256.New()
	n, err := io.Copy(h, contextReader{ctx, f})
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// contextReader reads until a context ends.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
