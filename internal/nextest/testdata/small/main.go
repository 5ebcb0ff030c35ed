// Command small is as little as a program can be: for executables of other kinds.
package main

func main() {}
