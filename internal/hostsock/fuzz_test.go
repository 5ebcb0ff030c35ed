package hostsock_test

import (
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"nex/internal/hostsock"
)

// FuzzReplies: what is cut into parts is made of these parts.
func FuzzReplies(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02hi\x00\x00\x00\x00"))
	f.Add([]byte("\xff\xff\xff\xffhi"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		parts, err := hostsock.Split(payload)
		if err != nil {
			return
		}
		var joined []byte
		for _, p := range parts {
			joined = append(binary.BigEndian.AppendUint32(joined, uint32(len(p))), p...)
		}
		if !slices.Equal(joined, payload) {
			t.Errorf("%q became %q", payload, parts)
		}
	})
}

// FuzzHeader: a line that is taken has its name and value in the message.
func FuzzHeader(f *testing.F) {
	f.Add("Name: value")
	f.Add("a:b:c")
	f.Add(":")
	f.Fuzz(func(t *testing.T, line string) {
		header, err := hostsock.ReadHeader([]string{line, line})
		name, value, ok := strings.Cut(line, ":")
		if (err == nil) != (ok && name != "") {
			t.Fatalf("%q: %v", line, err)
		}
		if err == nil && (len(header) != 1 || !slices.Equal(header[name], []string{strings.Trim(value, " \t"), strings.Trim(value, " \t")})) {
			t.Errorf("%q became %q", line, header)
		}
	})
}

// FuzzKey: every key can be asked for when it is escaped, and is what the host
// hears.
func FuzzKey(f *testing.F) {
	for _, key := range []string{"a", "a/b", "/", "..", "a//b", "%", "%2F", "ü ?#&+", "\x00\xff"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/kv/"+url.PathEscape(key), nil)
		_, args, ok := hostsock.Match(r.Method, r.URL.Path)
		if ok != (key != "") || ok && args["key"] != key {
			t.Errorf("%q became %q, %v", key, args, ok)
		}
	})
}
