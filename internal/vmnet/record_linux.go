package vmnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// recordName is the file that says what a machine's network is made of, in the
// directory of its records.
const recordName = "network.json"

// record is what it takes to undo a machine's network. It is written before
// anything is made, and once more when the plugins have said what they made.
type record struct {
	Version   int             `json:"version"`
	ID        string          `json:"id"`
	NetNS     string          `json:"netns"`
	Table     string          `json:"table"`     // of nftables
	Chain     string          `json:"chain"`     // of the guest
	Interface string          `json:"interface"` // in the namespace
	Tap       string          `json:"tap"`
	Network   json.RawMessage `json:"network"` // the CNI configuration
	// UnsetForward says that forwarding of IPv4 was off in the host before the
	// plugins ran, which may have turned it on.
	UnsetForward bool `json:"unset_forward,omitempty"`

	// What the plugins made.
	HostVeth string `json:"host_veth,omitempty"`
	HostMAC  string `json:"host_mac,omitempty"`
	IP       string `json:"ip,omitempty"`
}

// write puts the record into a directory, whole or not at all.
func (r record) write(dir string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, recordName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		os.Remove(path + ".new")
	}
	return err
}

// readRecord returns the record in a directory, nil if there is none.
func readRecord(dir string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, recordName), err)
	}
	if r.Version != 1 || !idPattern.MatchString(r.ID) || r.NetNS != netnsPath(r.ID) {
		return nil, fmt.Errorf("%s was not written by this version of nex", filepath.Join(dir, recordName))
	}
	return &r, nil
}

// remove takes the record away, when nothing is left of what it tells.
func (r record) remove(dir string) error {
	err := os.Remove(filepath.Join(dir, recordName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
