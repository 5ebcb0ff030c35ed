package qemu

import "testing"

func TestVersion(t *testing.T) {
	for text, want := range map[string]string{"QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright": "7.2.22", "QEMU emulator version ": "", "busybox": ""} {
		if got, ok := parseVersion(text); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %t", text, got, ok)
		}
	}
}
