// A command that leaves marks everywhere a C program can: what it prints shows
// whether it met any of an earlier call.
//
// state.wasm is this, with Debian's clang, lld, wasi-libc and
// libclang-rt-14-dev-wasm32:
//
//	clang --target=wasm32-wasi -O2 -o state.wasm state.c
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int counter;
static char marks[100000];
static char *kept;

static int later(const void *a, const void *b) { return *(const char *)a - *(const char *)b; }

int main(int argc, char **argv) {
	static char input[1 << 20];
	size_t size = fread(input, 1, sizeof input, stdin);
	counter++;
	printf("%d %d %d %s ", counter, marks[size % sizeof marks], kept != NULL, argv[argc - 1]);
	memset(marks, 7, sizeof marks);
	kept = malloc(size * 3 + 1);
	memset(kept, 'x', size * 3);
	printf("%zu ", strlen(strncpy(kept, input, size)));
	qsort(input, size, 1, later);
	fwrite(input, 1, size, stdout);
	if (size > 0 && input[0] == '!') {
		close(1);
		exit(size % 200);
	}
	return 0;
}
