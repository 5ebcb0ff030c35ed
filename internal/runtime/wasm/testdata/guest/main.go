// Command guest is the function under test: the environment variable BEHAVIOUR
// says what it does.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	switch b := os.Getenv("BEHAVIOUR"); b {
	case "echo":
		os.Stdout.Write(payload)
	case "subject":
		os.Stdout.Write(append(payload, os.Args[1]...))
	case "empty":
	case "throw":
		fmt.Fprintln(os.Stderr, "boom")
		os.Exit(3)
	case "panic":
		panic("boom")
	case "loop":
		for {
		}
	case "sleep":
		time.Sleep(time.Hour)
	case "big":
		for range 1000 {
			os.Stdout.WriteString("0123456789")
		}
	case "huge":
		for chunk := bytes.Repeat([]byte("x"), 1<<20); ; {
			os.Stdout.Write(chunk)
		}
	case "log":
		fmt.Fprintln(os.Stderr, "hello log")
	case "lines":
		os.Stderr.WriteString("one\ntw")
		os.Stderr.WriteString("o\r\n\n" + string(bytes.Repeat([]byte("x"), 70_000)) + "\npartial")
	case "hog":
		for hoard := [][]byte{}; ; {
			hoard = append(hoard, bytes.Repeat([]byte("x"), 1<<20))
		}
	case "world":
		world()
	default:
		fmt.Fprintln(os.Stderr, "unknown behaviour", b)
		os.Exit(98)
	}
}

// world tells what the function sees around it.
func world() {
	began := time.Now()
	time.Sleep(20 * time.Millisecond)
	random := make([]byte, 16)
	rand.Read(random)
	_, fileErr := os.ReadDir("/")
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"args":   os.Args,
		"env":    os.Environ(),
		"now":    began.UnixMilli(),
		"slept":  time.Since(began).Milliseconds(),
		"random": random,
		"nofile": fileErr != nil,
	})
}
