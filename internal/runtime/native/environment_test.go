package native

import (
	"reflect"
	"testing"

	"nex"
)

func TestEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		asked map[string]string
		want  []string
	}{
		"nothing":         {nil, []string{"HOME=/h", "PATH=" + defaultPath}},
		"upper case keys": {map[string]string{"natsUrl": "nats://X"}, []string{"HOME=/h", "NATSURL=nats://X", "PATH=" + defaultPath}},
		"own path":        {map[string]string{"path": "/p", "HOME": ""}, []string{"HOME=", "PATH=/p"}},
		"same in capitals": {map[string]string{"a": "1", "A": "2"},
			[]string{"A=2", "HOME=/h", "PATH=" + defaultPath}},
		"value kept": {map[string]string{"A": " =b\nc"}, []string{"A= =b\nc", "HOME=/h", "PATH=" + defaultPath}},
	} {
		got, err := environment(c.asked, "/h")
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	for _, bad := range []map[string]string{{"": "x"}, {"A=": "x"}, {"A\x00": "x"}, {"A": "\x00"}} {
		if _, err := environment(bad, "/h"); nex.CodeOf(err) != nex.Invalid {
			t.Errorf("%q: error %v, want invalid", bad, err)
		}
	}
}
