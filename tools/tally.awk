# Counts the results in the output of "go test -json", subtests included, and
# prints "N passed, N failed". Of a test that ran more than once the last result
# counts, and one that failed before it passed is named. A package that fails without
# a failing test (it does not build, crashes, leaves something behind or never ends) is one
# failure. Exits with 1 when anything failed or nothing passed.

function field(name) {
	if (!match($0, "\"" name "\":\"[^\"]*\"")) return ""
	return substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 5)
}

{ action = field("Action"); package = field("Package"); test = field("Test") }
action == "start"                { open[package] = 1 }
action == "pass" && test != ""   { result[package " " test] = "passed" }
action == "fail" && test != ""   { result[package " " test] = "failed"; before[package " " test] = 1; blamed[package] = 1 }
(action == "pass" || action == "skip" || action == "fail") && test == "" {
	delete open[package]
	if (action == "fail" && !(package in blamed)) failed++
	delete blamed[package]
}

END {
	for (package in open) failed++
	for (test in result) {
		if (result[test] == "passed") passed++; else failed++
		if (result[test] == "passed" && test in before) print "failed once, and passed when it ran again: " test
	}
	if (passed + failed == 0) print "no test ran" > "/dev/stderr"
	printf "%d passed, %d failed\n", passed, failed
	exit (failed > 0 || passed == 0)
}
