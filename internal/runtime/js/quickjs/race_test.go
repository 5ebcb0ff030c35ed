//go:build race

package quickjs

// slower is how many times fewer rounds long tests make with the race
// detector, which slows the engine down so much.
const slower = 30
