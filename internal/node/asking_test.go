package node_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"nex"
	"nex/internal/nextest"
)

// asker is the same program as a function in JavaScript.
const asker = `async (subject, payload, ctx) => {
	let at = 0;
	const line = () => new TextDecoder().decode(payload.subarray(at, (at = payload.indexOf(10, at) + 1) - 1));
	const service = line(), method = line(), size = Number(line()), args = {};
	for (let n = Number(line()); n > 0; n--) args[line()] = line();
	const bytes = size > 0 ? new Uint8Array(size) : payload.slice(at);
	const { key, name, subject: to, url, count } = args;
	const given = { kv: [key, bytes], objectstore: [name, bytes], messaging: [to, bytes, { count }], http: [url, bytes] }[service];
	try {
		const value = await hostServices[service === "objectstore" ? "objectStore" : service][method + "Async"](...given);
		if (service === "http") return value.status + value.text();
		if (method !== "requestMany") return value?.length > 2 ** 19 ? value.length : value;
		const all = new Uint8Array(value.reduce((n, r) => n + 4 + r.length, 0));
		value.reduce((at, r) => { new DataView(all.buffer).setUint32(at, r.length); all.set(r, at + 4); return at + 4 + r.length }, 0);
		return all;
	} catch (error) {
		return error.code ?? String(error);
	}
}`

// askers deploys the asker in all its forms, and returns where each of them is
// asked.
func (r *rig) askers(t *testing.T) map[string]string {
	t.Helper()
	service := filepath.Join(t.TempDir(), "asker")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", service, "./testdata/asker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the service: %v\n%s", err, out)
	}
	for name, w := range map[string]nex.Workload{
		"asker":     r.upload(t, "asker", nex.V8, []byte(asker)),
		"askerwasm": r.upload(t, "askerwasm", nex.Wasm, must(os.ReadFile("testdata/asker/function.wasm"))(t)),
		"native":    r.upload(t, "native", nex.Native, must(os.ReadFile(service))(t)),
	} {
		if name == "native" {
			w.Environment = map[string]string{"NATS_URL": r.nc.ConnectedUrl()}
		} else {
			w.TriggerSubjects = []string{"ask." + name}
			w.Settings = nex.Settings{FunctionMemoryMiB: 512, FunctionTimeoutMS: int(nextest.Patience.Milliseconds())}
		}
		if _, err := r.deploy(t, w); err != nil {
			t.Fatalf("deploy %s: %v", name, err)
		}
	}
	for begun := time.Now(); ; { // a service runs before it listens
		if _, err := r.nc.Request("ask.native", []byte("kv\nkeys\n0\n0\n"), nextest.Patience); err == nil {
			break
		} else if !errors.Is(err, nats.ErrNoResponders) || time.Since(begun) > nextest.Patience {
			t.Fatalf("the native service: %v", err)
		}
		<-time.After(10 * time.Millisecond)
	}
	return map[string]string{"JavaScript": "ask.asker", "WebAssembly": "ask.askerwasm", "native": "ask.native"}
}

// replies are what requestMany gives for these.
func replies(all ...string) string {
	var b []byte
	for _, r := range all {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(r))), r...)
	}
	return string(b)
}

// TestEveryoneAsksAlike does the same from JavaScript, from WebAssembly and from
// a native service.
func TestEveryoneAsksAlike(t *testing.T) {
	r := hostRig(t)
	if _, err := r.nc.Subscribe("question", func(m *nats.Msg) {
		_ = m.Respond(append([]byte("re: "), m.Data...))
		_ = m.Respond([]byte("again"))
	}); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, _ := io.ReadAll(q.Body)
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, " "+q.Method+" "+q.URL.String()+" "+string(body))
	}))
	t.Cleanup(web.Close)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	type args = map[string]string
	steps := []struct {
		service, method string
		args            args
		payload         string
		want            string // what begins with ~ is somewhere in the answer
	}{
		{"kv", "keys", nil, "", "[]"},
		{"kv", "set", args{"key": "a.b"}, string(every), ""},
		{"kv", "get", args{"key": "a.b"}, "", string(every)},
		{"kv", "set", args{"key": "empty"}, "", ""},
		{"kv", "get", args{"key": "empty"}, "", ""},
		{"kv", "keys", nil, "", `["a.b","empty"]`},
		{"kv", "delete", args{"key": "a.b"}, "", ""},
		{"kv", "delete", args{"key": "never"}, "", ""},
		{"kv", "get", args{"key": "a.b"}, "", "not_found"},
		{"kv", "get", args{"key": "a b"}, "", "invalid"},
		{"kv", "set", args{"key": "large"}, "1048577 zeros", "too_large"},
		{"kv", "set", args{"key": "large"}, "1000000 zeros", ""},
		{"kv", "get", args{"key": "large"}, "", "1000000"},
		{"kv", "delete", args{"key": "large"}, "", ""},
		{"objectstore", "list", nil, "", "[]"},
		{"objectstore", "put", args{"name": "x/y z"}, string(every), `~"size":256`},
		{"objectstore", "get", args{"name": "x/y z"}, "", string(every)},
		{"objectstore", "list", nil, "", `~"name":"x/y z"`},
		{"objectstore", "delete", args{"name": "x/y z"}, "", ""},
		{"objectstore", "get", args{"name": "x/y z"}, "", "not_found"},
		{"objectstore", "put", args{"name": "large"}, "8388608 zeros", `~"size":8388608`},
		{"objectstore", "get", args{"name": "large"}, "", "8388608"},
		{"objectstore", "put", args{"name": "larger"}, "12582912 zeros", "too_large"},
		{"objectstore", "delete", args{"name": "large"}, "", ""},
		{"objectstore", "delete", args{"name": "x/y z"}, "", "not_found"},
		{"messaging", "publish", args{"subject": "published"}, string(every), ""},
		{"messaging", "request", args{"subject": "question"}, string(every), "re: " + string(every)},
		{"messaging", "requestMany", args{"subject": "question", "count": "2"}, "?", replies("re: ?", "again")},
		{"messaging", "request", args{"subject": "nobody.here"}, "", "unavailable"},
		{"messaging", "request", args{"subject": "a..b"}, "", "invalid"},
		{"messaging", "publish", args{"subject": "$NEX.LAMEDUCK.x"}, "", "denied"},
		{"messaging", "publish", args{"subject": "$JS.API.INFO"}, "", "denied"},
		{"http", "get", args{"url": web.URL + "/a?b=c"}, "", "202 GET /a?b=c "},
		{"http", "post", args{"url": web.URL}, "x", "202 POST / x"},
		{"http", "put", args{"url": web.URL}, "x", "202 PUT / x"},
		{"http", "patch", args{"url": web.URL}, "x", "202 PATCH / x"},
		{"http", "delete", args{"url": web.URL}, "x", "202 DELETE / x"},
		{"http", "head", args{"url": web.URL}, "", "202"},
		{"http", "get", args{"url": "http://169.254.169.254/latest"}, "", "denied"},
		{"http", "get", args{"url": "gopher://example.org"}, "", "invalid"},
	}
	for language, subject := range r.askers(t) {
		t.Run(language, func(t *testing.T) {
			published := must(r.nc.SubscribeSync("published"))(t)
			for _, s := range steps {
				size, payload := "0", s.payload
				if n, zeros := strings.CutSuffix(payload, " zeros"); zeros {
					size, payload = n, ""
				}
				lines := []string{s.service, s.method, size, strconv.Itoa(len(s.args))}
				for name, value := range s.args {
					lines = append(lines, name, value)
				}
				got := string(r.call(t, subject, []byte(strings.Join(append(lines, payload), "\n"))).Data)
				part, some := strings.CutPrefix(s.want, "~")
				if got != s.want && !(some && strings.Contains(got, part)) {
					t.Errorf("%s.%s %v: %.300q, want %.300q", s.service, s.method, s.args, got, s.want)
				}
			}
			if m, err := published.NextMsg(nextest.Patience); err != nil || string(m.Data) != string(every) {
				t.Errorf("published %v, %v", m, err)
			}
		})
	}
}
