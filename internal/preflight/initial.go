package preflight

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"nex/internal/vmnet"
)

// InitialConfig makes a configuration to begin with: of a node that has microVMs
// and keeps what they boot in its state directory, or of one without a sandbox.
func InitialConfig(sandbox bool, stateDir string) []byte {
	type cni struct {
		Network   string `json:"network_name"`
		Interface string `json:"interface_name"`
		Subnet    string `json:"subnet"`
	}
	type template struct {
		CPUs   int `json:"vcpu_count"`
		Memory int `json:"memsize_mib"`
	}
	file := struct {
		NoSandbox bool              `json:"no_sandbox,omitempty"`
		Dir       string            `json:"default_resource_dir,omitempty"`
		Pool      int               `json:"machine_pool_size"`
		CNI       *cni              `json:"cni,omitempty"`
		Template  *template         `json:"machine_template,omitempty"`
		Tags      map[string]string `json:"tags"`
	}{Pool: 1, Tags: map[string]string{"simple": "true"}, NoSandbox: !sandbox}
	if sandbox {
		file.Dir = filepath.Join(stateDir, "images", "default")
		file.CNI = &cni{vmnet.DefaultNetwork, vmnet.DefaultInterface, vmnet.DefaultSubnet}
		file.Template = &template{1, 256}
	}
	data, err := json.MarshalIndent(file, "", "  ")
	if err != nil {
		panic(err) // there is nothing in it that JSON does not have
	}
	return append(data, '\n')
}

// WriteNew writes a file that must not be there yet; the error wraps
// [fs.ErrExist] if it is.
func WriteNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
