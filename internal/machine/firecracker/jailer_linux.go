package firecracker

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nex/internal/cgroup"
)

// parentGroup is the directory of the cgroups that the jailer makes.
const parentGroup = "nex-jailer"

// makeJail makes the root directory of a machine and puts the image there.
func (b *boot) makeJail() error {
	j := b.l.Jail
	program, err := filepath.EvalSymlinks(b.l.Firecracker) // so does the jailer
	if err != nil {
		return err
	}
	name := filepath.Base(program)
	if !strings.Contains(name, "firecracker") {
		return fmt.Errorf("the jailer takes no program but firecracker, and that is the file %s", program)
	}
	b.user = b.l.enter(b.id)
	b.uid, b.gid = cmp.Or(j.UID, b.user), cmp.Or(j.GID, b.user)
	base := j.base(b.dir)
	b.root = filepath.Join(base, name, b.id, "root")
	if j.ChrootBase != "" {
		b.rec.Root = filepath.Join(base, name, b.id)
	}
	if len(j.Cgroup) > 0 {
		b.rec.Groups = jailerGroups(b.id)
	}
	if err := b.rec.write(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.root, 0o700); err != nil {
		return err
	}
	for name, file := range map[string]string{kernelFile: b.l.Image.Kernel, initramfsFile: b.l.Image.Initramfs, rootfsFile: b.l.Image.RootFS} {
		if file == "" {
			continue
		}
		if err := b.rec.bring(b.dir, b.root, name, file); err != nil {
			return err
		}
	}
	return nil
}

// base is the directory that the jailer is told to work in.
func (j *Jail) base(dir string) string {
	if j.ChrootBase != "" {
		return j.ChrootBase
	}
	return dir
}

// The names of an image's files in a jail.
const (
	kernelFile    = "vmlinux"
	initramfsFile = "initramfs"
	rootfsFile    = "rootfs.ext4"
)

// image is the image with the paths that Firecracker knows.
func (b *boot) image() Image {
	i := b.l.Image
	if b.l.Jail == nil {
		return i
	}
	i.Kernel, i.RootFS = kernelFile, rootfsFile
	if i.Initramfs != "" {
		i.Initramfs = initramfsFile
	}
	return i
}

// jailed is the command line of the jailer. It becomes Firecracker, in the same
// process and without a daemon's session: the node waits for it.
func (b *boot) jailed() []string {
	j := b.l.Jail
	args := []string{
		j.Jailer, "--id", b.id, "--exec-file", b.l.Firecracker,
		"--uid", strconv.Itoa(b.uid), "--gid", strconv.Itoa(b.gid), "--chroot-base-dir", j.base(b.dir),
	}
	if b.nic != nil && b.nic.NetNS != "" {
		args = append(args, "--netns", b.nic.NetNS)
	}
	if len(j.Cgroup) > 0 {
		version := "1"
		if b.l.Groups.Kind() == cgroup.V2 {
			version = "2"
		}
		args = append(args, "--cgroup-version", version, "--parent-cgroup", parentGroup)
		for _, setting := range j.Cgroup {
			args = append(args, "--cgroup", setting)
		}
	}
	return append(args, "--", "--api-sock", apiSocket) // the jailer itself passes --id on
}

// jailerGroups are the directories that the jailer may make for a machine: one
// below each mount of cgroups.
func jailerGroups(id string) []string {
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") {
			dirs = append(dirs, filepath.Join(f[1], parentGroup, id))
		}
	}
	return dirs
}

// enter returns a user for a machine, which no other machine here has.
func (l *Launcher) enter(id string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == nil {
		l.users = map[int]bool{}
	}
	user := userOf(id)
	for l.users[user] {
		user = firstUser + (user-firstUser+1)%users
	}
	l.users[user] = true
	return user
}

// leave gives a machine's user back.
func (l *Launcher) leave(user int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.users, user)
}
