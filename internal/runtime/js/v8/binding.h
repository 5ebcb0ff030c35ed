//go:build v8 && linux && (amd64 || arm64)

// The binding of V8 that Go calls: what an isolate needs to serve messages,
// each with one call, and nothing else.
//
// An isolate is entered by one thread at a time, which may be another each
// time; only nex_stop may be called at any time, from any thread. Calls that wait
// are in it at the same time, each in a slot of its own. Texts are UTF-8. What a result points to is good until the isolate is entered again.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct nex_isolate nex_isolate;

// How an evaluation or a call ended.
enum nex_status {
	nex_ok,
	nex_thrown,    // the text: message, place and stack, joined by NUL
	nex_stopped,   // nex_stop was called
	nex_memory,    // the isolate met its memory limit
	nex_never,     // a promise is pending and nothing will settle it
	nex_wait,      // there is no value yet: nex_resume goes on
	nex_bad_reply, // the text says why the value is no reply
};

typedef struct {
	const char *data;
	size_t size;
} nex_text;

typedef struct {
	enum nex_status status;
	nex_text value;
	nex_text header; // of a reply, as JSON, or empty
	uint64_t ready;  // the slots of other calls whose promise is settled
	int wait;        // milliseconds until there is something to do for calls that wait, or -1
	int next;        // the slot in whose turn that is
	int crowded;     // half of the memory is in use
} nex_result;

// nex_calls is how many calls may be in an isolate.
enum { nex_calls = 64 };

// nex_add adds a script that code can load, for all isolates. It is called
// before nex_start.
void nex_add(const char *name, size_t name_size, const char *file, size_t file_size, const char *code, size_t code_size);

// nex_start starts V8 in this process. It must be called once, before anything
// else. guard and prelude are scripts that each isolate evaluates.
void nex_start(const char *guard, size_t guard_size, const char *prelude, size_t prelude_size);

// nex_new makes an isolate with nothing in it but the language, that may use
// so many bytes for its heap and its array buffers. handle is what it prints
// with.
nex_isolate *nex_new(uintptr_t handle, size_t memory);

// nex_load evaluates the prelude and then the script, and finds its function.
nex_result nex_load(nex_isolate *self, const char *info, size_t info_size, const char *name, size_t name_size,
	const char *code, size_t code_size, int may_be_module);

// nex_call calls the function with one message, in a free slot. others are the
// slots of calls that wait and that somebody still wants to go on. header may be
// NULL.
nex_result nex_call(nex_isolate *self, int slot, uint64_t others, const char *subject, size_t subject_size, const char *reply, size_t reply_size,
	const char *header, size_t header_size, double deadline, const char *payload, size_t payload_size);

// nex_resume goes on with the call in that slot, or with an evaluation, in slot 0.
// any is that of js.Turn.
nex_result nex_resume(nex_isolate *self, int slot, uint64_t others, int any);

// nex_stop ends the code that runs in the isolate. It does nothing to code that
// is just about to run: call it again until that is back.
void nex_stop(nex_isolate *self);

// nex_free frees everything.
void nex_free(nex_isolate *self);

// nex_heaps returns where it is kept, for atomic access, how many bytes the
// heaps of all isolates take.
const uint64_t *nex_heaps(void);

#ifdef __cplusplus
}
#endif
