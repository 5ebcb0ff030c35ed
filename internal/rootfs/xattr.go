package rootfs

import (
	"archive/tar"
	"fmt"
	"strings"
)

// Names of access control lists among the extended attributes.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// takeXattrs notes the extended attributes that an archive has for a file. Those
// of other file systems are left out.
func (n *node) takeXattrs(h *tar.Header) error {
	sum := 0
	for key, value := range h.PAXRecords {
		if name, ok := strings.CutPrefix(key, xattrKey); ok {
			if err := n.takeXattr(name, value, &sum); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeXattr notes an extended attribute as programs see it, and adds to the sum
// what it takes.
func (n *node) takeXattr(name, value string, sum *int) (err error) {
	switch {
	case name == aclAccess, name == aclDefault:
		if value, err = diskACL(value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	case !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "security."):
		return nil
	}
	if len(name) > maxName {
		return fmt.Errorf("extended attribute with a name of %d bytes", len(name))
	}
	if *sum += len(name) + len(value) + 24; *sum > maxXattrs {
		return fmt.Errorf("extended attributes of more than %d bytes", maxXattrs)
	}
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	n.xattrs[name] = value
	return nil
}

// Facts of access control lists.
const (
	aclHeader      = 4 // bytes before the entries
	aclSeenEntry   = 8 // bytes
	aclShortEntry  = 4 // on the disk, without an id
	aclSeenVersion = 2
	aclDiskVersion = 1
	aclNamedUser   = 0x02
	aclNamedGroup  = 0x08
	aclNobody      = 1<<32 - 1 // the id of entries that are nobody's in particular
)

// diskACL returns an access control list as ext4 keeps it, which differs from how
// programs see it: entries that are nobody's in particular have no id. See
// fs/ext4/acl.h and include/uapi/linux/posix_acl_xattr.h of the kernel.
func diskACL(seen string) (string, error) {
	in := []byte(seen)
	if len(in) < aclHeader || (len(in)-aclHeader)%aclSeenEntry != 0 || little.Uint32(in) != aclSeenVersion {
		return "", fmt.Errorf("an access control list of %d bytes that is not understood", len(in))
	}
	out := little.AppendUint32(nil, aclDiskVersion)
	for e := in[aclHeader:]; len(e) > 0; e = e[aclSeenEntry:] {
		out = append(out, e[:aclShortEntry]...)
		if tag := little.Uint16(e); tag == aclNamedUser || tag == aclNamedGroup {
			out = append(out, e[aclShortEntry:aclSeenEntry]...)
		}
	}
	return string(out), nil
}

// seenACL returns what diskACL made its result of, but for ids that say nothing.
func seenACL(disk string) string {
	out := little.AppendUint32(nil, aclSeenVersion)
	for e := []byte(disk[aclHeader:]); len(e) > 0; {
		size := aclShortEntry
		if tag := little.Uint16(e); tag == aclNamedUser || tag == aclNamedGroup {
			size = aclSeenEntry
		}
		if out = append(out, e[:size]...); size == aclShortEntry {
			out = little.AppendUint32(out, aclNobody)
		}
		e = e[size:]
	}
	return string(out)
}
