// Package law holds the rules of this repository that the compiler does not
// know, as tests: which package may import which, what the binaries may link,
// that every package says what it is for, how long a file may be, and calls
// that are not made. It has no code of its own.
//
// The tests read the source files in this process. A test that leaves the
// reading to a child process is answered from the test cache after the law was
// broken, because the cache sees only what the test itself opens.
package law
