package image

import (
	"fmt"
	"io"
)

// File types and permissions in a cpio archive, which are those of inodes.
const (
	cpioDir    = 0o040755
	cpioFile   = 0o100755
	cpioDevice = 0o020600
)

// cpio writes an archive of the format newc, which the kernel unpacks into its
// first root file system; see "initramfs buffer format" in the kernel's
// documentation. Everything belongs to root and is of no time, so that equal files
// make equal bytes.
type cpio struct {
	w     io.Writer
	at    int64
	inode int
	err   error
}

// add writes an entry. Its name has no slash at the beginning.
func (c *cpio) add(name string, mode uint32, data []byte) { c.entry(name, mode, data, 0, 0) }

// device writes an entry for a character device.
func (c *cpio) device(name string, major, minor uint32) {
	c.entry(name, cpioDevice, nil, major, minor)
}

func (c *cpio) entry(name string, mode uint32, data []byte, major, minor uint32) {
	c.inode++
	fields := []uint32{uint32(c.inode), mode, 0, 0, 1, 0, uint32(len(data)), 0, 0, major, minor, uint32(len(name) + 1), 0}
	header := []byte("070701")
	for _, field := range fields {
		header = fmt.Appendf(header, "%08X", field)
	}
	c.write(append(append(header, name...), 0))
	c.pad()
	c.write(data)
	c.pad()
}

// close ends the archive.
func (c *cpio) close() error {
	c.inode = -1 // so that the last entry has inode 0
	c.entry("TRAILER!!!", 0, nil, 0, 0)
	return c.err
}

func (c *cpio) pad() { c.write(make([]byte, (4-c.at%4)%4)) }

func (c *cpio) write(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.at += int64(n)
	c.err = err
}

// initramfs writes the first root file system of guests: the first program, and
// modules with a list that says in which order to load them.
func initramfs(w io.Writer, init []byte, modules []module) error {
	c := &cpio{w: w}
	c.add("dev", cpioDir, nil)
	c.device("dev/console", 5, 1) // the kernel opens it for the first program
	c.add("modules", cpioDir, nil)
	list := ""
	for i, m := range modules {
		path := fmt.Sprintf("modules/%02d-%s.ko", i, m.name)
		c.add(path, cpioFile, m.data)
		need := "optional"
		if m.required {
			need = "required"
		}
		list += need + " /" + path + "\n"
	}
	c.add("modules/list", cpioFile, []byte(list))
	c.add("init", cpioFile, init)
	return c.close()
}
