package hostsvc

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
)

// trustTestServers has this process trust the certificate that every
// httptest server shows, as far as the system can be told whom to trust.
func trustTestServers() (undo func()) {
	dir, err := os.MkdirTemp("", "hostsvc")
	if err != nil {
		panic(err)
	}
	srv := httptest.NewTLSServer(nil)
	defer srv.Close()
	file := filepath.Join(dir, "certificate.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		panic(err)
	}
	if err := os.Setenv("SSL_CERT_FILE", file); err != nil {
		panic(err)
	}
	return func() { _ = os.RemoveAll(dir) }
}
