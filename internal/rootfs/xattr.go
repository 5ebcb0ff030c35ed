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
		name, ok := strings.CutPrefix(key, xattrKey)
		switch {
		case !ok:
			continue
		case name == aclAccess, name == aclDefault:
			var err error
			if value, err = diskACL(value); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		case !strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "trusted.") && !strings.HasPrefix(name, "security."):
			continue
		}
		if len(name) > maxName {
			return fmt.Errorf("extended attribute with a name of %d bytes", len(name))
		}
		if sum += len(name) + len(value) + 24; sum > maxXattrs {
			return fmt.Errorf("extended attributes of more than %d bytes", maxXattrs)
		}
		if n.xattrs == nil {
			n.xattrs = map[string]string{}
		}
		n.xattrs[name] = value
	}
	return nil
}

// diskACL returns an access control list as ext4 keeps it, which differs from how
// programs see it: entries that are nobody's in particular have no id. See
// fs/ext4/acl.h and include/uapi/linux/posix_acl_xattr.h of the kernel.
func diskACL(seen string) (string, error) {
	const (
		header, entry = 4, 8
		seenVersion   = 2
		diskVersion   = 1
		namedUser     = 0x02
		namedGroup    = 0x08
	)
	in := []byte(seen)
	if len(in) < header || (len(in)-header)%entry != 0 || little.Uint32(in) != seenVersion {
		return "", fmt.Errorf("an access control list of %d bytes that is not understood", len(in))
	}
	out := little.AppendUint32(nil, diskVersion)
	for e := in[header:]; len(e) > 0; e = e[entry:] {
		out = append(out, e[:4]...)
		if tag := little.Uint16(e); tag == namedUser || tag == namedGroup {
			out = append(out, e[4:entry]...)
		}
	}
	return string(out), nil
}
