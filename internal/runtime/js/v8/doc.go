// Package v8 is the JavaScript engine of the agents that are shipped: V8, as
// the prebuilt static library of github.com/tommie/v8go, through a binding of
// our own. It has files only with the build tag v8, on Linux, with cgo; make
// build and make test know how.
package v8
