// Command guest is the function under test: the environment variable BEHAVIOUR
// says what it does. It imports little, since every test process compiles it.
package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	payload, err := io.ReadAll(os.Stdin)
	if err != nil {
		fail(99, err.Error())
	}
	switch b := os.Getenv("BEHAVIOUR"); b {
	case "echo":
		os.Stdout.Write(payload)
	case "subject":
		os.Stdout.Write(append(payload, os.Args[1]...))
	case "empty":
	case "throw":
		fail(3, "boom")
	case "silent":
		os.Exit(3)
	case "panic":
		panic("boom")
	case "loop":
		for {
		}
	case "logloop":
		os.Stderr.WriteString("looping\n")
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
		os.Stderr.WriteString("hello log\n")
	case "lines":
		os.Stderr.WriteString("one\ntw")
		os.Stderr.WriteString("o\r\n\n" + strings.Repeat("x", 70_000) + "\npartial")
	case "hog":
		for hoard := [][]byte{}; ; {
			hoard = append(hoard, bytes.Repeat([]byte("x"), 1<<20))
		}
	case "world":
		world()
	default:
		fail(98, "unknown behaviour "+b)
	}
}

func fail(status int, text string) {
	os.Stderr.WriteString(text + "\n")
	os.Exit(status)
}

// world tells what the function sees around it, one fact a line.
func world() {
	began := time.Now()
	time.Sleep(20 * time.Millisecond)
	_, err := os.ReadDir("/")
	os.Stdout.WriteString(strings.Join([]string{
		"args=" + strings.Join(os.Args, " "),
		"env=" + strings.Join(os.Environ(), " "),
		"now=" + strconv.FormatInt(began.UnixMilli(), 10),
		"slept=" + strconv.FormatInt(time.Since(began).Milliseconds(), 10),
		"random=" + strconv.FormatUint(rand.Uint64(), 16),
		"nofiles=" + strconv.FormatBool(err != nil),
	}, "\n"))
}
