package fcemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// config is what a machine is made of, as requests say it.
type config struct {
	CPUs      int
	MemoryMiB int
	Boot      struct {
		Kernel string `json:"kernel_image_path"`
		Initrd string `json:"initrd_path"`
		Args   string `json:"boot_args"`
	}
	Drives  []driveConfig // the root device is the first
	NICs    []nicConfig
	Vsock   string // path of the socket, "" for no device
	Entropy bool
}

type driveConfig struct {
	ID       string `json:"drive_id"`
	Path     string `json:"path_on_host"`
	Root     bool   `json:"is_root_device"`
	ReadOnly bool   `json:"is_read_only"`
}

type nicConfig struct {
	ID  string `json:"iface_id"`
	Tap string `json:"host_dev_name"`
	MAC string `json:"guest_mac"`
}

// vm is a Firecracker process: what it was told, and its machine.
type vm struct {
	id, version string
	jailed      bool // its root directory is the working directory

	mu       sync.Mutex // one request at a time
	cfg      config
	logs     *os.File
	metrics  *os.File
	metadata map[string]any
	mmds     bool
	machine  *qemu // once it was started
	paused   bool
	start    func(config) (*qemu, error)
}

var (
	errStarted    = errors.New("the requested operation is not supported after starting the microVM")
	errNotStarted = errors.New("the requested operation is not supported before starting the microVM")
)

// change is what to do with a request that is well formed.
type change struct {
	started bool // what the machine must be
	always  bool // or not
	do      func(v *vm, id string, body map[string]any) error
}

// changes are what the emulator can do, by method and path.
var changes = map[string]change{
	"PUT /logger":                {do: (*vm).putLogger, always: true},
	"PUT /metrics":               {do: (*vm).putMetrics},
	"PUT /machine-config":        {do: (*vm).putMachine},
	"PUT /boot-source":           {do: (*vm).putBoot},
	"PUT /drives/":               {do: (*vm).putDrive},
	"PUT /network-interfaces/":   {do: (*vm).putNIC},
	"PUT /vsock":                 {do: (*vm).putVsock},
	"PUT /entropy":               {do: func(v *vm, _ string, _ map[string]any) error { v.cfg.Entropy = true; return nil }},
	"PUT /mmds/config":           {do: (*vm).putMMDSConfig},
	"PUT /mmds":                  {do: (*vm).putMMDS, always: true},
	"PUT /actions":               {do: (*vm).act, always: true},
	"PATCH /vm":                  {do: (*vm).patchState, started: true},
	"PATCH /drives/":             {do: unsupported, started: true},
	"PATCH /network-interfaces/": {do: unsupported, started: true},
}

func unsupported(*vm, string, map[string]any) error {
	return errors.New("the emulator cannot do that")
}

// apply does what a request asks for.
func (v *vm) apply(method, path, id string, body map[string]any) error {
	c, known := changes[method+" "+strings.TrimSuffix(path, id)]
	if !known {
		return unsupported(v, "", nil)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case c.always:
	case c.started && v.machine == nil:
		return errNotStarted
	case !c.started && v.machine != nil:
		return errStarted
	}
	return c.do(v, id, body)
}

// fill puts the fields of a body, which were checked, into a struct.
func fill(body map[string]any, into any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// path returns where a path of a request is. In a jail / is the root directory,
// which is the working directory here: sockets have room for few bytes.
func (v *vm) path(p any) string {
	s, _ := p.(string)
	if !v.jailed || s == "" {
		return s
	}
	return "." + filepath.Clean("/"+s)
}

// output opens a file or a named pipe for a log, as Firecracker does: a pipe that
// nobody reads does not hold it up.
func (v *vm) output(old *os.File, p any) (*os.File, error) {
	if old != nil {
		return old, errors.New("it is initialized already")
	}
	return os.OpenFile(v.path(p), os.O_RDWR|os.O_CREATE|noBlock, 0o600)
}

func (v *vm) putLogger(_ string, body map[string]any) (err error) {
	v.logs, err = v.output(v.logs, body["log_path"])
	return err
}

func (v *vm) putMetrics(_ string, body map[string]any) (err error) {
	v.metrics, err = v.output(v.metrics, body["metrics_path"])
	return err
}

// logf writes a line to the log.
func (v *vm) logf(format string, args ...any) {
	if v.logs != nil {
		_, _ = fmt.Fprintf(v.logs, "[%s:main] "+format+"\n", append([]any{v.id}, args...)...) // a log that is full loses lines
	}
}

func (v *vm) putMachine(_ string, body map[string]any) error {
	n, m := body["vcpu_count"].(float64), body["mem_size_mib"].(float64)
	if m < 1 {
		return errors.New("the memory size (MiB) is invalid")
	}
	v.cfg.CPUs, v.cfg.MemoryMiB = int(n), int(m)
	return nil
}

func (v *vm) putBoot(_ string, body map[string]any) error {
	for _, field := range []string{"kernel_image_path", "initrd_path"} {
		if p := v.path(body[field]); p != "" {
			if err := readable(p); err != nil {
				return fmt.Errorf("the %s cannot be opened: %w", field, err)
			}
		}
	}
	if err := fill(body, &v.cfg.Boot); err != nil {
		return err
	}
	v.cfg.Boot.Kernel, v.cfg.Boot.Initrd = v.path(v.cfg.Boot.Kernel), v.path(v.cfg.Boot.Initrd)
	return nil
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return f.Close()
}

func (v *vm) putDrive(id string, body map[string]any) error {
	var d driveConfig
	if err := fill(body, &d); err != nil {
		return err
	}
	if d.ID != id {
		return errors.New("the id from the path does not match the id from the body")
	}
	d.Path = v.path(d.Path)
	if err := readable(d.Path); err != nil {
		return fmt.Errorf("unable to open the block device: %w", err)
	}
	var others []driveConfig
	for _, o := range v.cfg.Drives {
		if o.ID == id {
			continue
		}
		if o.Root && d.Root {
			return errors.New("a root block device already exists")
		}
		others = append(others, o)
	}
	if d.Root {
		v.cfg.Drives = append([]driveConfig{d}, others...)
	} else {
		v.cfg.Drives = append(others, d)
	}
	return nil
}

func (v *vm) putNIC(id string, body map[string]any) error {
	var n nicConfig
	if err := fill(body, &n); err != nil {
		return err
	}
	if n.ID != id {
		return errors.New("the id from the path does not match the id from the body")
	}
	for _, o := range v.cfg.NICs {
		if o.ID == id || o.Tap == n.Tap || o.MAC == n.MAC {
			return fmt.Errorf("the id, the host's device or the MAC address is in use: %s", o.ID)
		}
	}
	if _, err := net.InterfaceByName(n.Tap); err != nil {
		return fmt.Errorf("open tap device %s failed: %w", n.Tap, err)
	}
	v.cfg.NICs = append(v.cfg.NICs, n)
	return nil
}

func (v *vm) putVsock(_ string, body map[string]any) error {
	v.cfg.Vsock = v.path(body["uds_path"])
	return nil
}

func (v *vm) putMMDSConfig(_ string, body map[string]any) error {
	names, _ := body["network_interfaces"].([]any)
	for _, name := range names {
		found := false
		for _, n := range v.cfg.NICs {
			found = found || n.ID == name
		}
		if !found {
			return fmt.Errorf("the network interface %v is not there", name)
		}
	}
	if len(names) == 0 {
		return errors.New("the list of network interfaces is empty")
	}
	v.mmds = true
	return nil
}

func (v *vm) putMMDS(_ string, body map[string]any) error {
	v.metadata = body
	return nil
}

func (v *vm) act(_ string, body map[string]any) (err error) {
	switch what := body["action_type"]; {
	case what == "InstanceStart" && v.machine != nil:
		return errStarted
	case what == "InstanceStart" && v.cfg.Boot.Kernel == "":
		return errors.New("cannot start microvm without kernel configuration")
	case what == "InstanceStart":
		v.logf("Running Firecracker v%s", v.version)
		v.machine, err = v.start(v.cfg)
		return err
	case v.machine == nil:
		return errNotStarted
	case what == "FlushMetrics":
		if v.metrics == nil {
			return errors.New("metrics are not configured")
		}
		_, err = fmt.Fprintln(v.metrics, `{"utc_timestamp_ms":0,"vmm":{"device_events":0}}`)
		return err
	default:
		return v.machine.ctrlAltDel()
	}
}

func (v *vm) patchState(_ string, body map[string]any) error {
	v.paused = body["state"] == "Paused"
	return v.machine.pause(v.paused)
}

// look answers a GET request, with false for one that the emulator does not know.
func (v *vm) look(path string) (any, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch path {
	case "/":
		state := "Not started"
		if v.paused {
			state = "Paused"
		} else if v.machine != nil {
			state = "Running"
		}
		return map[string]any{"app_name": "Firecracker", "id": v.id, "state": state, "vmm_version": v.version}, true
	case "/version":
		return map[string]any{"firecracker_version": v.version}, true
	case "/machine-config":
		return map[string]any{"vcpu_count": max(v.cfg.CPUs, 1), "mem_size_mib": max(v.cfg.MemoryMiB, 128), "smt": false, "track_dirty_pages": false}, true
	case "/mmds":
		return v.metadata, true
	}
	return nil, false
}

// status is that of HTTP for the end of a request.
func status(err error) int {
	if err != nil {
		return http.StatusBadRequest
	}
	return http.StatusNoContent
}
