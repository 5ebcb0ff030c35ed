//go:build !race

package quickjs

// slower is how many times fewer rounds long tests make.
const slower = 1
