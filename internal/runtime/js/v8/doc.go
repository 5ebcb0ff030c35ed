// Package v8 is the JavaScript engine of the agents that are shipped: V8, as
// the prebuilt static library of github.com/tommie/v8go, through a binding of
// our own. It has files only with the build tag v8, on Linux, with cgo; make
// build and make test know how.
//
// One cgo call serves a message. One goroutine per engine watches the contexts
// of all code that runs, and ends when none does. A payload's buffer is detached
// when its call is over: functions keep copies, as payload.slice().
//
// V8 is no wall by itself. It ends the process where a single array would have
// 2**27 elements, as in "a".repeat(2**28).split(""), JSON.parse or match of such
// a text, and Array.from({length: 2**27}); and where the heaps of all isolates
// pass 4 GiB, which limits of 128 MiB for each do not. Some of its functions do
// not look whether they are to stop while they walk over something huge, as
// Object.keys(new Uint8Array(2**26)). Either way the agent's node starts another
// agent.
package v8
