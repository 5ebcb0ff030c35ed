//go:build !unix

package forward

import "os"

// onHangup does nothing: QEMU's user network is for systems that have it.
func onHangup(*os.File, func()) (stop func()) { return func() {} }
