package fcemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
)

// maxRequest is the most bytes of a request, Firecracker's default.
const maxRequest = 51200

// emulatorOptions are those of Firecracker's command line that the emulator knows.
var emulatorOptions = map[string]option{
	"api-sock": {}, "id": {}, "version": {flag: true},
	"start-time-us": {}, "start-time-cpu-us": {}, "parent-cpu-time-us": {},
}

// jailVariable is set for an emulator in a jail, whose working directory is what the
// root directory would be.
const jailVariable = "FCEMU_JAIL"

// emulate is the program that passes for Firecracker. It returns when its machine
// has ended.
func emulate(s settings, args []string, out io.Writer) error {
	values, _, err := parse(args, emulatorOptions)
	if err != nil {
		return err
	}
	if values["version"] != nil {
		_, err := fmt.Fprintf(out, "Firecracker v%s\n\n", s.Version)
		return err
	}
	v := &vm{id: "anonymous-instance", version: s.Version, jailed: os.Getenv(jailVariable) != ""}
	if id := one(values, "id"); id != "" {
		v.id = id
	}
	if err := checkInstanceID(v.id); err != nil {
		return err
	}
	described, err := loadSpec(s.Spec)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	v.start = func(c config) (*qemu, error) { return startQEMU(s.QEMU, c, func(err error) { ended <- err }) }

	socket := one(values, "api-sock")
	if socket == "" {
		socket = "/run/firecracker.socket"
	}
	l, err := net.Listen("unix", v.path(socket))
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // Firecracker leaves it
	var serving sync.WaitGroup
	defer serving.Wait()
	defer l.Close()
	serving.Go(func() { _ = http.Serve(l, &server{described, v}) }) // until l is closed
	err = <-ended
	v.mu.Lock()
	defer v.mu.Unlock()
	v.logf("Firecracker exiting: %v", err)
	return err
}

// server is the API.
type server struct {
	spec *spec
	vm   *vm
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "Firecracker API")
	w.Header().Set("Content-Type", "application/json")
	answer, err := s.answer(r)
	if err == nil && answer != nil {
		_ = json.NewEncoder(w).Encode(answer) // the client may be gone
		return
	}
	w.WriteHeader(status(err))
	if err != nil {
		_ = json.NewEncoder(w).Encode(map[string]string{"fault_message": err.Error()}) // likewise
	}
}

func (s *server) answer(r *http.Request) (any, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxRequest {
		return nil, errors.New("the request is too long")
	}
	fields, id, err := s.spec.check(r.Method, r.URL.Path, body)
	if err != nil {
		return nil, err
	}
	if r.Method != http.MethodGet {
		return nil, s.vm.apply(r.Method, r.URL.Path, id, fields)
	}
	answer, known := s.vm.look(r.URL.Path)
	if !known {
		return nil, unsupported(nil, "", nil)
	}
	return answer, nil
}
