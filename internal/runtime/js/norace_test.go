//go:build !race

package js_test

const raced = false
