package rootfs

import (
	"archive/tar"
)

const openRCService = `#!/sbin/openrc-run

name="nex-agent"
description="Runs workloads for a Nex node"
supervisor=supervise-daemon
command="` + AgentPath + `"
pidfile="/run/agent.pid"
output_log="/dev/console"
error_log="/dev/console"
respawn_delay=1

depend() {
	use localmount
	after bootmisc net
}
`

const systemdUnit = `[Unit]
Description=Runs workloads for a Nex node
After=local-fs.target

[Service]
ExecStart=` + AgentPath + `
Restart=always
RestartSec=1
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
`

// addStart has the image's init start the agent, and returns which that is. An
// image without one has the agent as its first process.
func (t *tree) addStart() (string, error) {
	switch {
	case t.find("/sbin/openrc", true) != nil && t.find("/sbin/init", true) != nil:
		if err := t.write("/etc/init.d/agent", 0o755, []byte(openRCService)); err != nil {
			return "", err
		}
		return ByOpenRC, t.put("/etc/runlevels/boot/agent", symlink("/etc/init.d/agent"))
	case t.hasSystemd():
		if err := t.write("/etc/systemd/system/nex-agent.service", 0o644, []byte(systemdUnit)); err != nil {
			return "", err
		}
		return BySystemd, t.put("/etc/systemd/system/multi-user.target.wants/nex-agent.service", symlink("/etc/systemd/system/nex-agent.service"))
	}
	return ByInit, nil
}

func (t *tree) hasSystemd() bool {
	init := t.find("/sbin/init", true)
	systemd := t.find("/lib/systemd/systemd", true)
	if systemd == nil {
		systemd = t.find("/usr/lib/systemd/systemd", true)
	}
	return init != nil && init == systemd
}

func symlink(target string) *node {
	return &node{kind: tar.TypeSymlink, mode: 0o777, link: target, modified: epoch}
}
