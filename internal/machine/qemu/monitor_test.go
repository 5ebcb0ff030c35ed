package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// vmm plays QEMU's end of a monitor: it greets, and answers each command with what
// say returns for it.
func vmm(conn net.Conn, greeting string, say func(line string) string) {
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, greeting); err != nil {
		return
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		answer := say(lines.Text())
		if answer == "" {
			return
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return
		}
	}
}

const greeting = `{"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": ["oob"]}}`

func TestMonitor(t *testing.T) {
	near, far := net.Pipe()
	n := 0
	go vmm(far, greeting, func(line string) string {
		n++
		switch {
		case strings.Contains(line, `"qmp_capabilities"`), strings.Contains(line, `"stop"`):
			return fmt.Sprintf(`{"event": "STOP", "timestamp": {}}`+"\n"+`{"return": {}, "id": %d}`, n)
		case strings.Contains(line, `"set_link","arguments":{"name":"net","up":true}`):
			return fmt.Sprintf(`{"id": 999, "return": {}}`+"\n"+`{"error": {"class": "GenericError", "desc": "no such device"}, "id": %d}`, n)
		}
		return "" // the end
	})
	m, err := newMonitor(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.execute(t.Context(), "stop", nil); err != nil {
		t.Error(err)
	}
	if err := m.execute(t.Context(), "set_link", map[string]any{"name": "net", "up": true}); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("got %v", err)
	}
	if err := m.execute(t.Context(), "cont", nil); !errors.Is(err, errMonitorGone) {
		t.Errorf("got %v", err)
	}
	<-m.gone
}

// TestMonitorOfAHostileVMM: what is no QMP, or without end, ends the connection.
func TestMonitorOfAHostileVMM(t *testing.T) {
	for name, first := range map[string]string{"garbage": "hello", "long": `{"QMP": "` + strings.Repeat("x", 2*maxMessage), "array": "[]"} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			go vmm(far, first, func(string) string { return "" })
			if _, err := newMonitor(t.Context(), near); err == nil {
				t.Error("accepted")
			}
		})
	}
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newMonitor(ctx, near); !errors.Is(err, context.Canceled) {
		t.Errorf("one that says nothing: %v", err)
	}
}

func FuzzMonitor(f *testing.F) {
	f.Add([]byte(greeting + "\n" + `{"return": {}, "id": 1}` + "\n" + `{"event": "RESET"}`))
	f.Add([]byte(`{"QMP": {}}` + "\n" + `{"error": {"desc": "no"}, "id": 1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		go func() {
			go func() { // what it is told
				for b := make([]byte, 1024); ; {
					if _, err := far.Read(b); err != nil {
						return
					}
				}
			}()
			_, _ = far.Write(data)
			_ = far.Close()
		}()
		m, err := newMonitor(t.Context(), near)
		if err != nil {
			return
		}
		_ = m.execute(t.Context(), "stop", nil)
		<-m.gone
	})
}
