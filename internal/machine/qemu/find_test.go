package qemu

import "testing"

func TestVersions(t *testing.T) {
	for output, want := range map[string]string{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright": "7.2.22",
		"QEMU emulator version 10.0.2\n":                                "10.0.2",
		"QEMU emulator version 4.2.1\n":                                 "",
		"QEMU emulator version\n":                                       "",
		"QEMU emulator version x\n":                                     "",
		"bash 5\n":                                                      "",
		"":                                                              "",
	} {
		if got, err := checkVersion(output); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", output, got, err, want)
		}
	}
}
