// Package nex is the public contract of Nex, the execution engine for NATS:
// the control subjects, the requests, replies, events and log records that
// travel on them, the signing and sealing they need, and a [Client].
//
// The wire format is that of Nex 0.2.7 with additions in extra JSON fields
// only, so clients and nodes of both kinds work together.
package nex
