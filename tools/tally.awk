# Counts the results in the output of "go test -json", subtests included, and
# prints "N passed, N failed". A package that fails without a failing test
# (it does not build, crashes, or never ends) is one failure. Exits with 1 when
# anything failed or nothing passed.

function field(name) {
	if (!match($0, "\"" name "\":\"[^\"]*\"")) return ""
	return substr($0, RSTART + length(name) + 4, RLENGTH - length(name) - 5)
}

{ action = field("Action"); package = field("Package"); test = field("Test") }
action == "start"                { open[package] = 1 }
action == "pass" && test != ""   { passed++ }
action == "fail" && test != ""   { failed++; blamed[package] = 1 }
(action == "pass" || action == "skip" || action == "fail") && test == "" {
	delete open[package]
	if (action == "fail" && !(package in blamed)) failed++
}

END {
	for (package in open) failed++
	if (passed + failed == 0) print "no test ran" > "/dev/stderr"
	printf "%d passed, %d failed\n", passed, failed
	exit (failed > 0 || passed == 0)
}
