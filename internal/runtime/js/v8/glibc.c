//go:build v8 && linux && (amd64 || arm64)

// The prebuilt V8 is made for glibc 2.38 and calls some functions by the names
// they have there since C23. Where they are missing, their older selves serve:
// all they do not know is the prefix 0b of binary numbers, which V8 does not
// read with them.
#include <features.h>

#if !__GLIBC_PREREQ(2, 38)

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

long __isoc23_strtol(const char *s, char **end, int base) { return strtol(s, end, base); }

long long __isoc23_strtoll(const char *s, char **end, int base) { return strtoll(s, end, base); }

unsigned long __isoc23_strtoul(const char *s, char **end, int base) { return strtoul(s, end, base); }

unsigned long long __isoc23_strtoull(const char *s, char **end, int base) { return strtoull(s, end, base); }

int __isoc23_sscanf(const char *s, const char *format, ...) {
	va_list args;
	va_start(args, format);
	int n = vsscanf(s, format, args);
	va_end(args);
	return n;
}

int __isoc23_fscanf(FILE *f, const char *format, ...) {
	va_list args;
	va_start(args, format);
	int n = vfscanf(f, format, args);
	va_end(args);
	return n;
}

#endif
