package firecracker

// What the driver tells Firecracker, by the names of its API. A pointer that is
// nil is not sent.

type instanceInfo struct {
	ID      string `json:"id"`
	State   string `json:"state"` // "Not started", "Running" or "Paused"
	Version string `json:"vmm_version"`
}

type logger struct {
	Path      string `json:"log_path"` // a file or a named pipe
	Level     string `json:"level"`    // Error, Warning, Info or Debug
	ShowLevel bool   `json:"show_level"`
}

type metrics struct {
	Path string `json:"metrics_path"` // a file or a named pipe
}

type machineConfig struct {
	CPUs      int `json:"vcpu_count"` // 1 to 32
	MemoryMiB int `json:"mem_size_mib"`
}

type bootSource struct {
	Kernel string `json:"kernel_image_path"` // an ELF file
	Initrd string `json:"initrd_path,omitempty"`
	// Args is the whole command line of the kernel: Firecracker's default one has
	// nomodule, and so is never right for a kernel with modules.
	Args string `json:"boot_args"`
}

type drive struct {
	ID       string       `json:"drive_id"` // letters, digits and _
	Path     string       `json:"path_on_host"`
	Root     bool         `json:"is_root_device"` // the first, /dev/vda
	ReadOnly bool         `json:"is_read_only"`
	Limiter  *RateLimiter `json:"rate_limiter,omitempty"`
}

type networkInterface struct {
	ID  string       `json:"iface_id"` // letters, digits and _
	Tap string       `json:"host_dev_name"`
	MAC string       `json:"guest_mac,omitempty"`
	In  *RateLimiter `json:"rx_rate_limiter,omitempty"`
	Out *RateLimiter `json:"tx_rate_limiter,omitempty"`
}

type vsock struct {
	CID  uint32 `json:"guest_cid"` // at least 3
	Path string `json:"uds_path"`  // the guest's port N is the socket Path_N
}

type mmdsConfig struct {
	Version    string   `json:"version"` // V2: with a session token
	Interfaces []string `json:"network_interfaces"`
}

type entropy struct{}

type action struct {
	Type string `json:"action_type"`
}

// The actions.
const (
	instanceStart  = "InstanceStart"
	sendCtrlAltDel = "SendCtrlAltDel"
	flushMetrics   = "FlushMetrics"
)

// RateLimiter bounds what a device moves. What is nil is not bounded.
type RateLimiter struct {
	Bandwidth *TokenBucket `json:"bandwidth,omitempty"` // bytes
	Ops       *TokenBucket `json:"ops,omitempty"`       // operations
}

// TokenBucket holds Size tokens, and has as many again after RefillTime
// milliseconds. OneTimeBurst comes before that, once.
type TokenBucket struct {
	OneTimeBurst int64 `json:"one_time_burst,omitempty"`
	RefillTime   int64 `json:"refill_time"` // in milliseconds, above 0
	Size         int64 `json:"size"`        // above 0
}
