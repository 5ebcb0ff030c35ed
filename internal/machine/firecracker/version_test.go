package firecracker

import (
	"fmt"
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
	for output, want := range map[string]string{
		"Firecracker v1.8.0\n\nSupported snapshot data format versions: v1.0.0\n": "1.8.0",
		"Firecracker v1.12.1\n":             "1.12.1",
		"Firecracker v1.16.3-dirty\n":       "1.16.3",
		"Firecracker v1.7.0\n":              "ACPI",
		"Firecracker v0.25.2\n":             "too old",
		"Firecracker v1.17.0\n":             "newer",
		"Firecracker v2.0.0\n":              "newer",
		"firecracker v1.12.0\n":             "no Firecracker",
		"QEMU emulator version 7.2.22":      "no Firecracker",
		"":                                  "no Firecracker",
		"Firecracker v1.99999999999999.0\n": "no Firecracker",
	} {
		got, err := checkVersion(output)
		if err != nil {
			got = err.Error()
		}
		if strings.HasPrefix(want, "1.") && got != want || !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", output, got, want)
		}
	}
}

func TestSupportedIsWhatIsAccepted(t *testing.T) {
	if want := fmt.Sprintf("1.%d to 1.%d", oldest, newest); Supported != want {
		t.Errorf("people are told %s, and %s is accepted", Supported, want)
	}
}
