package hostsock_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nex/internal/hostsock"
	"nex/internal/nextest"
	"nex/internal/runtime"
)

// examples are the lines of the documentation that are to be typed.
func examples(t *testing.T) (lines []string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/host-services.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## From native services")
	_, code, _ := strings.Cut(section, "```sh\n")
	code, _, ok := strings.Cut(code, "\n```")
	if !ok {
		t.Fatal("no examples in docs/host-services.md")
	}
	return strings.Split(code, "\n")
}

// TestExamplesOfTheDocumentation types them, where files of their names are.
func TestExamplesOfTheDocumentation(t *testing.T) {
	nextest.Program(t, "curl")
	type args = map[string]string
	want := []struct {
		question
		prints string
	}{
		{question{"kv", "set", runtime.Message{Args: args{"key": "greeting"}, Payload: []byte("content of greeting.txt")}}, ""},
		{question{"kv", "get", runtime.Message{Args: args{"key": "greeting"}}}, "kv.get"},
		{question{"objectstore", "put", runtime.Message{Args: args{"name": "2026/report.pdf"}, Payload: []byte("content of report.pdf")}}, "objectstore.put"},
		{question{"messaging", "request", runtime.Message{Args: args{"subject": "greet", "timeout_ms": "500"}, Header: map[string][]string{"trace": {"7"}}, Payload: []byte("hello")}}, "messaging.request"},
		{question{"http", "get", runtime.Message{Args: args{"url": "https://example.org/"}, Header: map[string][]string{"Accept": {"text/html"}}}}, `{"status":200,"url":"","headers":{},"body":"aHR0cC5nZXQ="}` + "\n"},
	}
	f := &fake{answer: func(_ context.Context, q question) (runtime.Message, error) {
		return runtime.Message{Args: args{"status": "200"}, Payload: []byte(q.service + "." + q.method)}, nil
	}}
	s := serve(t, hostsock.Listen, f)
	dir := t.TempDir()
	for _, name := range []string{"greeting.txt", "report.pdf"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := examples(t)
	if len(lines) != len(want) {
		t.Fatalf("%d examples, expected %d", len(lines), len(want))
	}
	for i, line := range lines {
		shell := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(line, "curl ", "curl --silent --show-error --fail ", 1))
		shell.Dir = dir
		shell.Env = append(os.Environ(), hostsock.Variable+"="+s.Path())
		out, err := shell.CombinedOutput()
		if err != nil || string(out) != want[i].prints {
			t.Errorf("%s: %v, %q", line, err, out)
		}
		q := f.last()
		if q.service != want[i].service || q.method != want[i].method || !maps.Equal(q.Args, want[i].Args) || string(q.Payload) != string(want[i].Payload) {
			t.Errorf("%s asks %+v", line, q)
		}
		for name, values := range want[i].Header {
			if got := q.Header[name]; len(got) != 1 || got[0] != values[0] {
				t.Errorf("%s: header %s is %q", line, name, got)
			}
		}
	}
}
