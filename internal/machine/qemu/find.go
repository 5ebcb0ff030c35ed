package qemu

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"nex/internal/machine/microvm"
)

// name is QEMU's for the only processor that it has the kind of machine for.
const name = "qemu-system-x86_64"

// oldest is the first version whose machine "microvm" is complete.
const oldest = 5

// ErrMissing is the error of [Find] where there is no QEMU at all.
var ErrMissing = errors.New(name + " is neither in bin_path nor in PATH: install the package qemu-system-x86")

// Find finds QEMU in directories, and its version, which is one that the driver was
// made for. The program is returned with an error about its version, too.
func Find(ctx context.Context, dirs []string) (program, version string, err error) {
	if runtime.GOARCH != "amd64" {
		return "", "", fmt.Errorf("QEMU has microVMs for amd64 alone, this host is %s", runtime.GOARCH)
	}
	if program = microvm.FindProgram(name, dirs); program == "" {
		return "", "", ErrMissing
	}
	output, err := microvm.AskVersion(ctx, program)
	if err != nil {
		return program, "", err
	}
	if version, err = checkVersion(output); err != nil {
		return program, "", fmt.Errorf("%s: %w", program, err)
	}
	return program, version, nil
}

// versionWord is what QEMU calls its versions, as 7.2.22 or 10.0.2-rc1.
var versionWord = regexp.MustCompile(`^(\d{1,4})\.\d{1,4}\S*$`)

// checkVersion reads "QEMU emulator version 7.2.22 (Debian …)", and refuses versions
// that the driver was not made for.
func checkVersion(output string) (string, error) {
	_, rest, ok := strings.Cut(output, "QEMU emulator version ")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return "", fmt.Errorf("it says %.80q, which is no QEMU", output)
	}
	m := versionWord.FindStringSubmatch(words[0])
	if m == nil {
		return "", fmt.Errorf("it says that it is of version %.40q", words[0])
	}
	if major, _ := strconv.Atoi(m[1]); major < oldest {
		return "", fmt.Errorf("version %s is too old: its machine \"microvm\" is complete since %d.0", words[0], oldest)
	}
	return words[0], nil
}
