//go:build race

package js_test

const raced = true
