// Command compile loads modules, whose files are its arguments, so that their
// compiled code is in the cache directory named before them. The tests have it
// do so because with the race detector compiling takes twenty times as long.
package main

import (
	"context"
	"log/slog"
	"os"

	"nex/internal/runtime/wasm"
)

func main() {
	for _, file := range os.Args[2:] {
		if err := compile(os.Args[1], file); err != nil {
			slog.Error(err.Error())
			os.Exit(1)
		}
	}
}

func compile(cache, file string) error {
	code, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, err := wasm.Load(context.Background(), wasm.Options{Code: code, CacheDir: cache, Log: func(_ slog.Level, text string) { slog.Warn(text) }})
	if err != nil {
		return err
	}
	return f.Close(context.Background())
}
