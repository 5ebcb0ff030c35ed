package firecracker

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// parentGroup is the directory of the cgroups that the jailer makes.
const parentGroup = "nex-jailer"

// The names of files in a jail.
const (
	kernelFile    = "vmlinux"
	initramfsFile = "initramfs"
	rootfsFile    = "rootfs.ext4"
	diskFile      = "disk.ext4"
)

// makeJail makes the root directory of a machine and puts the image and the
// machine's disk there.
func (b *boot) makeJail() error {
	j := b.l.Jail
	name, err := jailName(b.l.Firecracker)
	if err != nil {
		return err
	}
	b.user = b.l.users.Take(b.ID)
	b.uid, b.gid = cmp.Or(j.UID, b.user), cmp.Or(j.GID, b.user)
	jail := filepath.Join(j.base(b.Dir), name, b.ID)
	b.root = filepath.Join(jail, "root")
	b.rec.Jail = b.root
	if j.ChrootBase != "" {
		b.rec.Root = jail
	}
	if len(j.Cgroup) > 0 {
		b.rec.Groups = jailerGroups(b.ID)
	}
	if err := b.rec.write(b.Records); err != nil {
		return err
	}
	if err := os.MkdirAll(b.root, 0o700); err != nil {
		return err
	}
	for name, file := range map[string]string{kernelFile: b.l.Kernel, initramfsFile: b.l.Initramfs, rootfsFile: b.l.RootFS} {
		if err := b.rec.bring(b.Records, b.root, name, file, imageMode, b.uid, b.gid); err != nil {
			return err
		}
	}
	if err := os.Chown(b.Disk, b.uid, b.gid); err != nil {
		return fmt.Errorf("%w; where the node has few users, as in a container, set jailer.uid and jailer.gid", err)
	}
	b.disk = diskFile
	return b.rec.bring(b.Records, b.root, diskFile, b.Disk, 0, b.uid, b.gid)
}

// base is the directory that the jailer is told to work in.
func (j *Jail) base(dir string) string { return cmp.Or(j.ChrootBase, dir) }

// image returns the files of the image by the paths that Firecracker knows.
func (b *boot) image() (kernel, initramfs, rootfs string) {
	if b.l.Jail == nil {
		return b.l.Kernel, b.l.Initramfs, b.l.RootFS
	}
	return kernelFile, initramfsFile, rootfsFile
}

// jailed is the command line of the jailer. It becomes Firecracker, in the same
// process, which the node waits for: neither with --daemonize nor with --new-pid-ns.
func (b *boot) jailed() []string {
	j := b.l.Jail
	args := []string{
		j.Jailer, "--id", b.ID, "--exec-file", b.l.Firecracker,
		"--uid", strconv.Itoa(b.uid), "--gid", strconv.Itoa(b.gid), "--chroot-base-dir", j.base(b.Dir),
		"--resource-limit", "fsize=" + strconv.FormatInt(int64(b.l.DiskMiB)<<20, 10), // no file but the disk, and that no larger
	}
	if b.NIC != nil && b.NIC.NetNS != "" {
		args = append(args, "--netns", b.NIC.NetNS)
	}
	if len(j.Cgroup) > 0 {
		args = append(args, "--cgroup-version", "1", "--parent-cgroup", parentGroup)
		for _, setting := range j.Cgroup {
			args = append(args, "--cgroup", setting)
		}
	}
	return append(args, "--", "--api-sock", apiSocket) // --id the jailer itself passes on
}

// jailerGroups are the directories that the jailer may make for a machine: one
// below each mount of cgroups of version 1.
func jailerGroups(id string) []string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup" {
			dirs = append(dirs, filepath.Join(f[1], parentGroup, id))
		}
	}
	return dirs
}
