// Package chaos drives a world of real processes through faults and checks that
// what Nex promises holds: a NATS server, one or three nodes with their agents,
// functions and services on them, and calls all the time. It kills and stops
// these processes, cuts, stalls and delays the nodes' connections and fills
// their disks, all by a plan that is drawn from a seed.
//
//	make chaos SEED=7 DURATION=5m
//	make chaos SEED=7 DURATION=5m CHAOSFLAGS='-nodes 1'
//	go test -tags v8 ./test/chaos -run Chaos -seed 7 -duration 5m -pace 4
//
// The same seed gives the same plan: what is done, when, and to whom among those
// who are there at that time. What the processes make of it is up to the host, so
// a failure may take more than one run to come again.
//
// # What must be true
//
//   - A call has one reply at most, ever. The reply is its own or a typed error.
//     It has one, unless there was a fault that may excuse that: the server or the
//     node dead or stopped, or the connection between them disturbed, until the
//     node answers again and its functions are healthy. The death of an agent
//     excuses nothing.
//   - A workload whose deploy was answered with success is there when all faults are
//     over: same id, same node, healthy, answering, until its stop is asked for.
//     One whose stop was answered, or whose deploy was refused, is not there.
//     Where the answer was lost it may have gone either way.
//   - A workload's undeploy event comes once at most, and once if its stop was
//     answered while nothing disturbed the events. No deploy event follows it,
//     unless its node ended in order in between, which is the end of all it runs.
//   - Without faults no deploy and no stop is refused, and none is as internal, ever.
//   - Nodes do not end by themselves, and do end when they are told to, with
//     status 0. Then nothing is left: no process, file, mount or control group.
//     Nodes whose workloads are all stopped have the goroutines and open files
//     that they began with.
//
// # How to read a failure
//
// Each violation is one line: when it happened, what, to which call or workload, and
// the last faults before it. The seed's plan, what the driver did and what the
// nodes and the server logged is in files in the test's artifact directory, which
// go test keeps when it is run with -artifacts; the command on the line "again"
// of the test's output does that. Times in violations and in driver.log are seconds
// since the world was complete; the first line of driver.log has the hour.
//
// Everything but this text is for Linux, where processes can be looked at
// without asking them. Full disks need root, and are left out without.
package chaos
