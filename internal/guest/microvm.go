package guest

// Where an agent in a microVM finds its node: the vsock port of the host, or the
// virtio-serial port of that name.
const (
	VsockPort  = 1024
	SerialPort = "nex.link"
)
