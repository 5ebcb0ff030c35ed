package firecracker

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"nex/internal/machine/microvm"
)

// The versions that the driver was made for, of 1.x.
const (
	oldest = 8
	newest = 16
)

// Supported are the versions that the driver was made for, for people.
const Supported = "1.8 to 1.16"

// Version asks a program for its version, and returns an error if it is none that
// the driver was made for.
func Version(ctx context.Context, program string) (string, error) {
	output, err := microvm.AskVersion(ctx, program)
	if err != nil {
		return "", err
	}
	version, err := checkVersion(output)
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, err)
	}
	return version, nil
}

// versionLine is what the first line of firecracker --version looks like.
var versionLine = regexp.MustCompile(`^Firecracker v(\d{1,4})\.(\d{1,4})\.(\d{1,4})\S*\s*$`)

func checkVersion(output string) (string, error) {
	line, _, _ := strings.Cut(output, "\n")
	m := versionLine.FindStringSubmatch(line)
	if m == nil {
		return "", fmt.Errorf("it is no Firecracker: it says %.80q where that says \"Firecracker v1.12.0\"", line)
	}
	version := strings.Join(m[1:], ".")
	major, _ := strconv.Atoi(m[1]) // digits, see above
	minor, _ := strconv.Atoi(m[2])
	switch {
	case major < 1 || major == 1 && minor < oldest:
		return "", fmt.Errorf("it is version %s, which is too old: the default kernel finds its devices by ACPI, which Firecracker has since 1.%d; install Firecracker 1.%d to 1.%d", version, oldest, oldest, newest)
	case major > 1 || minor > newest:
		return "", fmt.Errorf("it is version %s, which is newer than what this Nex was made for; install Firecracker 1.%d to 1.%d", version, oldest, newest)
	}
	return version, nil
}
