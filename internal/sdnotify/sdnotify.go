// Package sdnotify tells the service manager that started this process, as
// systemd with Type=notify, how the service is: by datagrams to the Unix socket
// that NOTIFY_SOCKET names.
//
// A [Notifier] is safe for concurrent use and holds nothing open. It never
// waits long: a manager that does not read costs a second.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	// patience is how long one message may wait for its reader.
	patience = time.Second
	// haste is how long one may that says what the next will say better.
	haste = 20 * time.Millisecond
)

// Notifier speaks to one service manager. Nil speaks to nobody: every method
// does nothing then.
type Notifier struct {
	socket   *net.UnixAddr
	watchdog time.Duration
}

// FromEnvironment returns the notifier for the manager of this process, nil if
// there is none that listens.
func FromEnvironment() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil, nil
	}
	if path[0] != '/' && path[0] != '@' { // @ begins an abstract address
		return nil, fmt.Errorf("NOTIFY_SOCKET is %q: only Unix sockets are known, as /run/notify or @name", path)
	}
	watchdog, err := watchdog(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"))
	if err != nil {
		return nil, err
	}
	return &Notifier{socket: &net.UnixAddr{Name: path, Net: "unixgram"}, watchdog: watchdog}, nil
}

// watchdog is how long the manager waits for a sign of life of this process, 0
// if it waits for none.
func watchdog(usec, pid string) (time.Duration, error) {
	if usec == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0, nil
	}
	n, err := strconv.ParseInt(usec, 10, 64)
	if err != nil || n <= 0 || n > int64(1<<62)/int64(time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q, not a number of microseconds", usec)
	}
	return time.Duration(n) * time.Microsecond, nil
}

// Watchdog is how often [Notifier.Alive] should be called, 0 for never: twice
// in the time that the manager waits.
func (n *Notifier) Watchdog() time.Duration {
	if n == nil {
		return 0
	}
	return n.watchdog / 2
}

// Ready says that the service has started.
func (n *Notifier) Ready(status string) error {
	return n.send(patience, "READY=1", "STATUS="+line(status))
}

// Status says in a few words what the service does.
func (n *Notifier) Status(status string) error { return n.send(haste, "STATUS="+line(status)) }

// Alive keeps the manager's watchdog from ending the service.
func (n *Notifier) Alive() error { return n.send(patience, "WATCHDOG=1") }

// Stopping says that the service ends, and within how long at most, so that it
// is not killed before.
func (n *Notifier) Stopping(within time.Duration, status string) error {
	return n.send(patience, "STOPPING=1", "EXTEND_TIMEOUT_USEC="+strconv.FormatInt(within.Microseconds(), 10), "STATUS="+line(status))
}

// line makes a text one line, for a newline begins the next field.
func line(s string) string { return strings.Join(strings.Fields(s), " ") }

// send sends one message.
func (n *Notifier) send(within time.Duration, fields ...string) error {
	if n == nil {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, n.socket)
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	defer conn.Close()
	if err = conn.SetWriteDeadline(time.Now().Add(within)); err == nil {
		_, err = conn.Write([]byte(strings.Join(fields, "\n")))
	}
	if err != nil {
		return fmt.Errorf("notify the service manager: %w", err)
	}
	return nil
}
