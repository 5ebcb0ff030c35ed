//go:build v8 && linux && (amd64 || arm64)

#include "binding.h"
#include "buffers.h"

#include <atomic>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include <libplatform/libplatform.h>
#include <v8.h>

using namespace v8;

extern "C" { // in Go
void nexPrint(uintptr_t handle, int32_t level, char *text, size_t size);
char *nexAsk(uintptr_t handle, char *what, size_t what_size, char *input, size_t size, size_t *answer_size);
}

namespace {

// flags of V8. Its highest tier strips loops of the checks that stop them, so
// code gets the second highest. Go's threads are there before V8 and would lack
// the rights to memory under protection keys. A small stack fits every thread.
// The limit of the young generation bounds how many dead array buffers, which
// is what messages are, wait for a collection: twice as many MiB.
constexpr char flags[] = "--max-opt=2 --single-threaded-gc --no-memory-protection-keys --stack-size=512 "
						 "--scavenger-max-new-space-capacity-mb=2";

// headroom is what a heap that met its limit may grow until the code in it has
// stopped.
constexpr size_t headroom = 512 << 20;

// pump_every is how many calls go by between looks at V8's own tasks.
constexpr unsigned pump_every = 64;

// events is how many timers and answers of host services a turn is for, so that
// others have theirs.
constexpr int events = 16;

constexpr char hidden[] = "nex:prelude"; // files that begin like that have no frames in stacks

Platform *engine;
size_t large_objects; // the number of the space of young large objects
std::atomic<uint64_t> heaps{0};
static_assert(sizeof heaps == sizeof(uint64_t) && std::atomic<uint64_t>::is_always_lock_free); // Go reads it

// Boot is a script that isolates evaluate before the user's.
struct Boot {
	std::string file, code;
	std::unique_ptr<ScriptCompiler::CachedData> compiled; // and the functions that the first isolate called
	Global<UnboundScript> script;                         // until it is compiled

	void compile(Isolate *isolate) {
		compiled.reset(ScriptCompiler::CreateCodeCache(script.Get(isolate)));
		script.Reset();
	}
} guard, prelude;

std::unordered_map<std::string, Boot> library; // what isolates load when they need it

// Claim counts a buffer that can grow, as long as it lives.
struct Claim {
	nex_isolate *owner;
	size_t size;
	Global<Value> buffer;
};

// Waiting is a call that waits, or an evaluation.
struct Waiting {
	Global<Promise> promise;
	Global<Uint8Array> payload;
};

} // namespace

struct nex_isolate {
	uintptr_t handle;
	Isolate *isolate;
	std::shared_ptr<Buffers> buffers;
	Global<Context> context;
	Global<Function> function;                                     // the user's
	Global<Function> entry, make_context, settle, encode, tick, next, explain; // the prelude's
	Waiting waiting[nex_calls];                                    // by slot
	Global<Module> module;                                         // that is being evaluated while it waits
	std::chrono::steady_clock::time_point born = std::chrono::steady_clock::now();
	std::unordered_set<Claim *> claims;
	std::string name;                    // of the script
	size_t counted = 0;                  // its part of heaps
	bool full = false;                   // met the memory limit
	unsigned calls = 0;                  // how often it was called, more or less
	std::string header;                  // of the reply
	std::string text;                    // what a result points to
	std::shared_ptr<BackingStore> bytes; // likewise
};

namespace {

nex_isolate *of(Isolate *isolate) { return static_cast<nex_isolate *>(isolate->GetData(0)); }

Local<String> literal(Isolate *isolate, const char *text) {
	return String::NewFromUtf8(isolate, text, NewStringType::kInternalized).ToLocalChecked();
}

MaybeLocal<String> string(Isolate *isolate, const char *text, size_t size) {
	if (size > size_t(String::kMaxLength)) return {};
	return String::NewFromUtf8(isolate, text, NewStringType::kNormal, int(size));
}

void write(Isolate *isolate, Local<String> from, std::string *to) {
	to->resize(from->Utf8LengthV2(isolate));
	from->WriteUtf8V2(isolate, to->data(), to->size(), String::WriteFlags::kReplaceInvalidUtf8);
}

nex_text view(std::string_view s) { return {s.data(), s.size()}; }

nex_result result(nex_status status, nex_text value = {}) { return {status, value, {}, 0, 0, 0, 0}; }

bool is_bytes(Local<Value> v) { return v->IsTypedArray() || v->IsArrayBuffer() || v->IsSharedArrayBuffer(); }

// new_bytes returns an array of so many bytes, and where they are.
MaybeLocal<Uint8Array> new_bytes(Isolate *isolate, size_t size, char **data) {
	Local<ArrayBuffer> buffer;
	if (!ArrayBuffer::MaybeNew(isolate, size, BackingStoreInitializationMode::kUninitialized).ToLocal(&buffer)) return {};
	*data = static_cast<char *>(buffer->Data());
	return Uint8Array::New(buffer, 0, size);
}

// count notes how much the heap takes of the space that all heaps share.
HeapStatistics count(nex_isolate *self) {
	HeapStatistics heap;
	self->isolate->GetHeapStatistics(&heap);
	heaps += heap.total_heap_size() - self->counted;
	self->counted = heap.total_heap_size();
	return heap;
}

// evaluate returns the value of a script of ours.
MaybeLocal<Value> evaluate(Isolate *isolate, Boot *from);

// Entered is a stay of the calling thread in an isolate.
class Entered {
  public:
	explicit Entered(nex_isolate *self, int slot = 0, uint64_t others = 0, bool any = false)
		: self(self), slot(slot), others(others), any(any || others == 0), isolate(self->isolate), locker(isolate), scope(isolate), handles(isolate),
		  context(self->context.Get(isolate)), inside(context), caught(isolate) {
		caught.SetCaptureMessage(false);
		self->buffers->refused = false;
		self->header.clear();
		self->bytes.reset();
		if (self->text.capacity() > (1 << 20)) std::string().swap(self->text);
	}

	MaybeLocal<Value> call(const Global<Function> &f, Local<Value> argument) {
		return f.Get(isolate)->Call(context, Undefined(isolate), 1, &argument);
	}

	// boot calls the function that a script of ours is.
	MaybeLocal<Value> boot(Boot *from, int argc, Local<Value> *argv);
	// run evaluates the user's script or module to *value.
	nex_result run(Local<String> code, bool may_be_module, Local<Value> *value);
	// pass runs jobs and timers until the promise is settled.
	nex_result pass(Local<Promise> promise);
	// wait_for ends the turn of a call that waits; when is what tick said.
	nex_result wait_for(Local<Promise> promise, int32_t when);
	// settle waits for *value when it is a promise, or like one.
	nex_result settle(Local<Value> *value);
	// reply returns the bytes of a reply. encoded says that it was no bytes once.
	nex_result reply(Local<Value> value, bool encoded = false);
	// loaded ends a load that evaluated the script to value, unless r says no.
	nex_result loaded(nex_result r, Local<Value> value);
	// answered ends a call whose value is settled, unless r says no.
	nex_result answered(nex_result r, Local<Value> value, Local<Uint8Array> payload);
	// leave runs the jobs that are left, and returns r if nothing is against it.
	nex_result leave(nex_result r);
	// ready returns the slots of others whose promise is settled.
	uint64_t ready();
	// tell adds to r what concerns others.
	nex_result tell(nex_result r);
	// ended reports whether no more code may run, and why.
	bool ended(nex_result *why);
	// failed says how code ended that has no value.
	nex_result failed();
	// explain says what was thrown.
	nex_result explain(Local<Value> thrown);

	nex_isolate *const self;
	const int slot;
	const uint64_t others;
	const bool any;
	Isolate *const isolate;
	Locker locker;
	Isolate::Scope scope;
	HandleScope handles;
	Local<Context> context;
	Context::Scope inside;
	TryCatch caught;
};

bool Entered::ended(nex_result *why) {
	if (self->full) return *why = result(nex_memory), true;
	if (caught.HasTerminated() || isolate->IsExecutionTerminating()) return *why = result(nex_stopped), true;
	return false;
}

nex_result Entered::failed() {
	if (nex_result why; ended(&why)) return why;
	if (self->buffers->refused || !caught.HasCaught()) {
		self->full = true;
		return result(nex_memory);
	}
	Local<Value> thrown = caught.Exception();
	caught.Reset();
	return explain(thrown);
}

nex_result Entered::explain(Local<Value> thrown) {
	Local<Value> said;
	if (!call(self->explain, thrown).ToLocal(&said) || !said->IsString()) {
		if (nex_result why; ended(&why)) return why;
		caught.Reset();
		return result(nex_thrown, view("an exception that cannot be shown"));
	}
	std::string &text = self->text;
	write(isolate, said.As<String>(), &text);
	size_t at = text.find('\0') + 1;
	if (at > 0 && text[at] == '\0' && thrown->IsNativeError()) {
		// It has no stack that says where, as an error of syntax.
		Local<Message> message = Exception::CreateMessage(isolate, thrown);
		Local<Value> file = message->GetScriptOrigin().ResourceName();
		Local<String> name;
		if (string(isolate, self->name.data(), self->name.size()).ToLocal(&name) && file->StrictEquals(name)) {
			text.insert(at, self->name + ":" + std::to_string(message->GetLineNumber(context).FromMaybe(1)) + ":" +
				std::to_string(message->GetStartColumn() + 1));
		}
	}
	return result(nex_thrown, view(text));
}

nex_result Entered::pass(Local<Promise> promise) {
	for (int done = 0; promise->State() == Promise::kPending; done++) {
		isolate->PerformMicrotaskCheckpoint();
		if (nex_result why; ended(&why)) return why;
		if (promise->State() != Promise::kPending) break;
		if (ready() != 0 || done == events) return wait_for(promise, slot); // others first
		Local<Value> next, turn[] = {Integer::New(isolate, slot), Boolean::New(isolate, any)};
		self->buffers->refused = false;
		if (!self->tick.Get(isolate)->Call(context, Undefined(isolate), 2, turn).ToLocal(&next) || self->buffers->refused) return failed();
		int32_t when = next.As<Int32>()->Value();
		if (when == -1) return result(nex_never);
		if (when >= 0) return wait_for(promise, when);
	}
	nex_result r = result(nex_ok);
	ended(&r);
	return r;
}

nex_result Entered::wait_for(Local<Promise> promise, int32_t when) {
	self->waiting[slot].promise.Reset(isolate, promise);
	nex_result r = result(nex_wait);
	r.wait = when / nex_calls;
	r.next = when % nex_calls;
	return r;
}

uint64_t Entered::ready() {
	uint64_t settled = 0;
	for (uint64_t rest = others; rest != 0; rest &= rest - 1) {
		int n = std::countr_zero(rest);
		Global<Promise> &promise = self->waiting[n].promise;
		if (!promise.IsEmpty() && promise.Get(isolate)->State() != Promise::kPending) settled |= uint64_t(1) << n;
	}
	return settled;
}

nex_result Entered::tell(nex_result r) {
	if (r.status == nex_wait || others != 0) r.crowded = self->buffers->over(self->buffers->limit / 2);
	if (others == 0) return r;
	r.ready = ready();
	if (r.status == nex_wait || r.status == nex_stopped || r.status == nex_memory) return r;
	Local<Value> wait;
	if (self->next.Get(isolate)->Call(context, Undefined(isolate), 0, nullptr).ToLocal(&wait)) {
		int32_t when = wait.As<Int32>()->Value();
		r.wait = when < 0 ? when : when / nex_calls;
		r.next = when < 0 ? 0 : when % nex_calls;
	} else {
		ended(&r);
	}
	return r;
}

nex_result Entered::settle(Local<Value> *value) {
	while ((*value)->IsObject() && !is_bytes(*value)) {
		if (!(*value)->IsPromise()) {
			Local<Value> next;
			if (!call(self->settle, *value).ToLocal(&next)) return failed();
			if (next == *value) break;
			*value = next;
			continue;
		}
		Local<Promise> promise = value->As<Promise>();
		nex_result r = pass(promise);
		if (r.status != nex_ok) return r;
		switch (promise->State()) {
		case Promise::kPending:
		case Promise::kRejected:
			return self->buffers->refused ? failed() : explain(promise->Result());
		case Promise::kFulfilled:
			*value = promise->Result();
		}
	}
	return result(nex_ok);
}

nex_result Entered::reply(Local<Value> value, bool encoded) {
	if (value->IsNullOrUndefined()) return result(nex_ok);
	if (value->IsString()) {
		if (value.As<String>()->Utf8LengthV2(isolate) > self->buffers->limit) { // it may be parts that are repeated
			self->full = true;
			return result(nex_memory);
		}
		write(isolate, value.As<String>(), &self->text);
		return result(nex_ok, view(self->text));
	}
	if (!is_bytes(value)) {
		Local<Value> as;
		if (encoded) return result(nex_bad_reply, view("it has no text"));
		if (call(self->encode, value).ToLocal(&as)) return reply(as, true);
		nex_result why = failed();
		if (why.status == nex_thrown) why = result(nex_bad_reply, view(why.value.data)); // the message alone
		return why;
	}
	if (value->IsTypedArray() && !value.As<TypedArray>()->HasBuffer()) { // it is on the heap, and small
		Local<TypedArray> array = value.As<TypedArray>();
		self->text.resize(array->ByteLength());
		array->CopyContents(self->text.data(), self->text.size());
		return result(nex_ok, view(self->text));
	}
	size_t at = 0, size = SIZE_MAX;
	if (value->IsTypedArray()) {
		at = value.As<TypedArray>()->ByteOffset();
		size = value.As<TypedArray>()->ByteLength();
		value = value.As<TypedArray>()->Buffer();
	}
	bool grows;
	if (value->IsSharedArrayBuffer()) {
		self->bytes = value.As<SharedArrayBuffer>()->GetBackingStore();
		grows = true; // or may be another's
	} else {
		Local<ArrayBuffer> buffer = value.As<ArrayBuffer>();
		if (buffer->WasDetached()) return result(nex_bad_reply, view("its buffer is detached"));
		self->bytes = buffer->GetBackingStore();
		grows = buffer->IsResizableByUserJavaScript();
	}
	if (size == SIZE_MAX) size = self->bytes->ByteLength();
	const char *data = static_cast<const char *>(self->bytes->Data()) + at;
	if (grows || size <= 4096) { // these may change with the jobs that are left, longer ones too long to care
		self->text.assign(data, size);
		self->bytes.reset();
		data = self->text.data();
	}
	return result(nex_ok, {data, size});
}

nex_result Entered::leave(nex_result r) {
	if (ended(&r)) return r;
	isolate->PerformMicrotaskCheckpoint();
	if (self->calls++ % pump_every == 0) {
		platform::PumpMessageLoop(engine, isolate);
		count(self);
	}
	// One large object may be young, and V8 does not hold it to the limit.
	HeapSpaceStatistics large;
	isolate->GetHeapSpaceStatistics(&large, large_objects);
	if (self->buffers->over(large.space_used_size())) self->full = true;
	ended(&r);
	return r;
}

// ---- what code can call ----

void throw_range_error(Isolate *isolate, const char *text) {
	isolate->ThrowException(Exception::RangeError(literal(isolate, text)));
}

// print is host.print(level, text).
void print(const FunctionCallbackInfo<Value> &info) {
	Isolate *isolate = info.GetIsolate();
	Local<String> from;
	if (!info[0]->IsInt32() || !info[1]->ToString(isolate->GetCurrentContext()).ToLocal(&from)) return;
	std::string text;
	write(isolate, from, &text);
	nexPrint(of(isolate)->handle, info[0].As<Int32>()->Value(), text.data(), text.size());
}

// ask is host.ask(what, array).
void ask(const FunctionCallbackInfo<Value> &info) {
	Isolate *isolate = info.GetIsolate();
	if (!info[0]->IsString() || !info[1]->IsArrayBufferView()) return;
	std::string what;
	write(isolate, info[0].As<String>(), &what);
	uint8_t small[64]; // as in decode
	MemorySpan<uint8_t> input = info[1].As<ArrayBufferView>()->GetContents({small, sizeof small});
	size_t size = 0;
	char *answer = nexAsk(of(isolate)->handle, what.data(), what.size(), reinterpret_cast<char *>(input.data()), input.size(), &size);
	if (answer == nullptr) return;
	char *data;
	Local<Uint8Array> to;
	if (new_bytes(isolate, size, &data).ToLocal(&to)) {
		memcpy(data, answer, size);
		info.GetReturnValue().Set(to);
	} else {
		throw_range_error(isolate, "Array buffer allocation failed");
	}
	free(answer);
}

// now is host.now().
void now(const FunctionCallbackInfo<Value> &info) {
	auto age = std::chrono::steady_clock::now() - of(info.GetIsolate())->born;
	info.GetReturnValue().Set(std::chrono::duration<double, std::milli>(age).count());
}

// load is host.load(part).
void load(const FunctionCallbackInfo<Value> &info) {
	Isolate *isolate = info.GetIsolate();
	std::string name;
	write(isolate, info[0].As<String>(), &name);
	Local<Value> value;
	if (evaluate(isolate, &library.at(name)).ToLocal(&value)) info.GetReturnValue().Set(value);
}

// header is host.header(text).
void header(const FunctionCallbackInfo<Value> &info) {
	Isolate *isolate = info.GetIsolate();
	Local<String> from;
	if (info[0]->ToString(isolate->GetCurrentContext()).ToLocal(&from)) write(isolate, from, &of(isolate)->header);
}

// encode is host.encode(string).
void encode(const FunctionCallbackInfo<Value> &info) {
	Isolate *isolate = info.GetIsolate();
	Local<String> from;
	if (!info[0]->ToString(isolate->GetCurrentContext()).ToLocal(&from)) return;
	size_t size = from->Utf8LengthV2(isolate);
	char *data;
	Local<Uint8Array> to;
	if (!new_bytes(isolate, size, &data).ToLocal(&to)) return throw_range_error(isolate, "Array buffer allocation failed");
	from->WriteUtf8V2(isolate, data, size, String::WriteFlags::kReplaceInvalidUtf8);
	info.GetReturnValue().Set(to);
}

// decode is host.decode(array, fatal).
void decode(const FunctionCallbackInfo<Value> &info) {
	Isolate *isolate = info.GetIsolate();
	if (!info[0]->IsArrayBufferView()) return;
	uint8_t small[64]; // arrays up to that size may be on the heap, which moves them
	MemorySpan<uint8_t> bytes = info[0].As<ArrayBufferView>()->GetContents({small, sizeof small});
	const char *data = reinterpret_cast<const char *>(bytes.data());
	Local<String> s;
	if (!string(isolate, data, bytes.size()).ToLocal(&s)) return throw_range_error(isolate, "Invalid string length");
	if (info[1]->IsTrue()) {
		std::string again; // is what it was, or that was not UTF-8
		write(isolate, s, &again);
		if (again != std::string_view(data, bytes.size())) return;
	}
	info.GetReturnValue().Set(s);
}

// claim is what the guard asks for buffers that can grow.
void claim(const FunctionCallbackInfo<Value> &info) {
	Isolate *isolate = info.GetIsolate();
	nex_isolate *self = of(isolate);
	size_t size;
	if (info[0]->IsArrayBuffer() && info[0].As<ArrayBuffer>()->IsResizableByUserJavaScript()) {
		size = info[0].As<ArrayBuffer>()->MaxByteLength();
	} else if (info[0]->IsSharedArrayBuffer()) {
		size = info[0].As<SharedArrayBuffer>()->MaxByteLength();
	} else {
		return;
	}
	if (size <= self->buffers->limit && self->buffers->over(size)) isolate->LowMemoryNotification(); // collects garbage
	if (size > self->buffers->limit || self->buffers->over(size)) {
		self->buffers->refused = true;
		return throw_range_error(isolate, "Array buffer allocation failed");
	}
	auto *c = new Claim{self, size, Global<Value>(isolate, info[0])};
	self->claims.insert(c);
	self->buffers->used += size;
	auto release = [](const WeakCallbackInfo<Claim> &info) {
		Claim *c = info.GetParameter();
		c->owner->buffers->used -= c->size;
		c->owner->claims.erase(c);
		delete c;
	};
	c->buffer.SetWeak(c, release, WeakCallbackType::kParameter);
}

Local<Function> native(Local<Context> context, FunctionCallback f) {
	return Function::New(context, f, {}, 0, ConstructorBehavior::kThrow).ToLocalChecked();
}

Local<Value> cannot_import(Isolate *isolate, Local<String> what) {
	Local<String> text = String::Concat(isolate, literal(isolate, "cannot import '"), what);
	return Exception::ReferenceError(
		String::Concat(isolate, text, literal(isolate, "': a function is one file, bundle what it needs into it")));
}

MaybeLocal<Module> refuse_import(Local<Context> context, Local<String> what, Local<FixedArray>, Local<Module>) {
	Isolate *isolate = context->GetIsolate();
	isolate->ThrowException(cannot_import(isolate, what));
	return {};
}

MaybeLocal<Promise> reject_import(Local<Context> context, Local<Data>, Local<Value>, Local<String> what, Local<FixedArray>) {
	Local<Promise::Resolver> resolver;
	if (!Promise::Resolver::New(context).ToLocal(&resolver)) return {};
	if (resolver->Reject(context, cannot_import(context->GetIsolate(), what)).IsNothing()) return {};
	return resolver->GetPromise();
}

// ---- limits ----

size_t near_heap_limit(void *data, size_t now, size_t) {
	auto *self = static_cast<nex_isolate *>(data);
	self->full = true;
	self->isolate->TerminateExecution();
	return now + headroom;
}

void after_collection(Isolate *isolate, GCType type, GCCallbackFlags, void *data) {
	auto *self = static_cast<nex_isolate *>(data);
	HeapStatistics heap = count(self);
	if (type != kGCTypeMarkSweepCompact) return;
	self->buffers->heap = heap.used_heap_size();
	if (self->buffers->over(0)) {
		self->full = true;
		isolate->TerminateExecution();
	}
}

// ---- loading ----

MaybeLocal<Value> evaluate(Isolate *isolate, Boot *from) {
	Local<Context> context = isolate->GetCurrentContext();
	Local<String> code, file;
	if (!string(isolate, from->code.data(), from->code.size()).ToLocal(&code) ||
		!string(isolate, from->file.data(), from->file.size()).ToLocal(&file)) {
		return {};
	}
	ScriptCompiler::CachedData *compiled = nullptr;
	if (from->compiled) compiled = new ScriptCompiler::CachedData(from->compiled->data, from->compiled->length);
	ScriptCompiler::Source source(code, ScriptOrigin(file), compiled); // deletes compiled
	auto how = compiled ? ScriptCompiler::kConsumeCodeCache : ScriptCompiler::kNoCompileOptions;
	Local<Script> script;
	Local<Value> value;
	if (!ScriptCompiler::Compile(context, &source, how).ToLocal(&script) || !script->Run(context).ToLocal(&value)) return {};
	if (!from->compiled) from->script.Reset(isolate, script->GetUnboundScript());
	return value;
}

MaybeLocal<Value> Entered::boot(Boot *from, int argc, Local<Value> *argv) {
	Local<Value> f;
	if (!evaluate(isolate, from).ToLocal(&f)) return {};
	return f.As<Function>()->Call(context, Undefined(isolate), argc, argv);
}

nex_result Entered::run(Local<String> code, bool may_be_module, Local<Value> *value) {
	Local<String> file;
	if (!string(isolate, self->name.data(), self->name.size()).ToLocal(&file)) return failed();
	ScriptCompiler::Source source(code, ScriptOrigin(file));
	Local<Script> script;
	if (ScriptCompiler::Compile(context, &source).ToLocal(&script)) {
		return script->Run(context).ToLocal(value) ? result(nex_ok) : failed();
	}
	if (nex_result why; !may_be_module || ended(&why)) return failed();
	caught.Reset();
	ScriptCompiler::Source again(code, ScriptOrigin(file, 0, 0, false, -1, {}, false, false, true));
	Local<Module> module;
	if (!ScriptCompiler::CompileModule(isolate, &again).ToLocal(&module) ||
		!module->InstantiateModule(context, refuse_import).FromMaybe(false) || !module->Evaluate(context).ToLocal(value)) {
		return failed();
	}
	self->module.Reset(isolate, module);
	return settle(value);
}

nex_result Entered::loaded(nex_result r, Local<Value> value) {
	if (r.status != nex_ok) return leave(r);
	if (!self->module.IsEmpty()) value = self->module.Get(isolate)->GetModuleNamespace();
	self->module.Reset();
	if (!call(self->entry, value).ToLocal(&value) || !value->IsFunction()) return leave(failed());
	self->function.Reset(isolate, value.As<Function>());
	return leave(result(nex_ok));
}

nex_result Entered::answered(nex_result r, Local<Value> value, Local<Uint8Array> payload) {
	r = leave(r.status == nex_ok ? reply(value) : r);
	r = tell(r);
	if (r.status == nex_wait) {
		self->waiting[slot].payload.Reset(isolate, payload);
		return r;
	}
	r.header = view(self->header);
	// The payload goes with its call: the next one gets the same memory, while
	// the processor still has it at hand, and nothing waits to be collected.
	payload->Buffer()->Detach({}).Check();
	return r;
}

} // namespace

extern "C" {

void nex_add(const char *name, size_t name_size, const char *file, size_t file_size, const char *code, size_t code_size) {
	Boot &part = library[std::string(name, name_size)];
	part.file.assign(file, file_size);
	part.code.assign(code, code_size);
}

void nex_start(const char *guard_code, size_t guard_size, const char *prelude_code, size_t prelude_size) {
	guard.file = prelude.file = hidden;
	guard.code.assign(guard_code, guard_size);
	prelude.code.assign(prelude_code, prelude_size);
	V8::SetFlagsFromString(flags);
	engine = platform::NewDefaultPlatform(1).release();
	V8::InitializePlatform(engine);
	V8::Initialize();
	blocks = new Blocks;
	// The first isolate compiles the scripts for all others. It stays, and with
	// it what isolates share, which would go with the last of them.
	nex_isolate *first = nex_new(0, 64 << 20);
	HeapSpaceStatistics space;
	do {
		first->isolate->GetHeapSpaceStatistics(&space, ++large_objects);
	} while (strcmp(space.space_name(), "new_large_object_space") != 0);
	constexpr std::string_view touch = "for (const key of Object.getOwnPropertyNames(globalThis)) globalThis[key]; () => 0";
	nex_load(first, "{}", 2, "", 0, touch.data(), touch.size(), 0);
	Entered in(first);
	guard.compile(in.isolate);
	prelude.compile(in.isolate);
	for (auto &part : library) part.second.compile(in.isolate);
}

nex_isolate *nex_new(uintptr_t handle, size_t memory) {
	auto *self = new nex_isolate;
	self->handle = handle;
	self->buffers = std::make_shared<Buffers>(memory);
	Isolate::CreateParams params;
	params.array_buffer_allocator_shared = self->buffers;
	params.constraints.ConfigureDefaultsFromHeapSize(0, memory);
	Isolate *isolate = self->isolate = Isolate::Allocate();
	isolate->SetData(0, self);
	Isolate::Initialize(isolate, params);
	Locker locker(isolate);
	Isolate::Scope scope(isolate);
	HandleScope handles(isolate);
	isolate->SetMicrotasksPolicy(MicrotasksPolicy::kExplicit);
	isolate->SetAllowAtomicsWait(false);
	isolate->SetHostImportModuleDynamicallyCallback(reject_import);
	isolate->AddNearHeapLimitCallback(near_heap_limit, self);
	isolate->AddGCEpilogueCallback(after_collection, self);
	Local<Context> context = Context::New(isolate);
	context->Global()->Delete(context, literal(isolate, "WebAssembly")).Check(); // its memories pass every limit by
	self->context.Reset(isolate, context);
	return self;
}

nex_result nex_load(nex_isolate *self, const char *info, size_t info_size, const char *name, size_t name_size,
	const char *code, size_t code_size, int may_be_module) {
	Entered in(self);
	Isolate *isolate = in.isolate;
	Local<Context> context = in.context;
	Local<String> about, text;
	Local<Value> value = native(context, claim);
	if (in.boot(&guard, 1, &value).IsEmpty() || !string(isolate, info, info_size).ToLocal(&about)) return in.failed();
	Local<Object> host = Object::New(isolate);
	static constexpr std::pair<const char *, FunctionCallback> functions[] = {
		{"print", print}, {"ask", ask}, {"now", now}, {"load", load}, {"header", header}, {"encode", encode}, {"decode", decode},
	};
	for (auto [key, f] : functions) host->Set(context, literal(isolate, key), native(context, f)).Check();
	Local<Value> argv[] = {host, about};
	if (!in.boot(&prelude, 2, argv).ToLocal(&value)) return in.failed();
	auto get = [&](const char *key) {
		Local<Value> v = value.As<Object>()->Get(context, literal(isolate, key)).ToLocalChecked();
		return Global<Function>(isolate, v.As<Function>());
	};
	self->entry = get("entry");
	self->make_context = get("Context");
	self->settle = get("settle");
	self->encode = get("encode");
	self->tick = get("tick");
	self->next = get("next");
	self->explain = get("explain");

	self->name.assign(name, name_size);
	if (!string(isolate, code, code_size).ToLocal(&text)) return in.failed();
	nex_result r = in.run(text, may_be_module, &value);
	return in.loaded(r, value);
}

nex_result nex_call(nex_isolate *self, int slot, uint64_t others, const char *subject, size_t subject_size, const char *reply, size_t reply_size,
	const char *header, size_t header_size, double deadline, const char *payload, size_t payload_size) {
	Entered in(self, slot, others);
	Isolate *isolate = in.isolate;
	Local<Context> context = in.context;
	Local<String> to, back, fields;
	Local<Uint8Array> bytes;
	Local<Object> info;
	Local<Value> value;
	char *data;
	if (!string(isolate, subject, subject_size).ToLocal(&to) || !string(isolate, reply, reply_size).ToLocal(&back) ||
		!string(isolate, header, header_size).ToLocal(&fields) || !new_bytes(isolate, payload_size, &data).ToLocal(&bytes)) {
		return in.failed();
	}
	memcpy(data, payload, payload_size);
	Local<Value> about[] = {to, bytes, back, Number::New(isolate, deadline), Integer::New(isolate, others == 0 ? -1 : slot), fields};
	if (!self->make_context.Get(isolate)->NewInstance(context, header == nullptr ? 5 : 6, about).ToLocal(&info)) return in.failed();
	Local<Value> argv[] = {to, bytes, info};
	bool done = self->function.Get(isolate)->Call(context, context->Global(), 3, argv).ToLocal(&value);
	nex_result r = done ? in.settle(&value) : in.failed();
	return in.answered(r, value, bytes);
}

nex_result nex_resume(nex_isolate *self, int slot, uint64_t others, int any) {
	Entered in(self, slot, others, any != 0);
	Waiting &waiting = self->waiting[slot];
	Local<Value> value = waiting.promise.Get(in.isolate);
	waiting.promise.Reset();
	nex_result r = in.settle(&value);
	if (!self->module.IsEmpty()) return in.loaded(r, value);
	Local<Uint8Array> payload = waiting.payload.Get(in.isolate);
	waiting.payload.Reset();
	return in.answered(r, value, payload);
}

void nex_stop(nex_isolate *self) { self->isolate->TerminateExecution(); }

void nex_free(nex_isolate *self) {
	Isolate *isolate = self->isolate;
	{
		Locker locker(isolate);
		Isolate::Scope scope(isolate);
		for (auto *f : {&self->function, &self->entry, &self->make_context, &self->settle, &self->encode, &self->tick, &self->next, &self->explain}) f->Reset();
		for (Waiting &w : self->waiting) w = {};
		self->module.Reset();
		for (Claim *c : self->claims) delete c;
		self->context.Reset();
		self->bytes.reset();
	}
	isolate->Dispose(); // which may collect, and so count, once more
	heaps -= self->counted;
	delete self;
}

const uint64_t *nex_heaps(void) { return reinterpret_cast<uint64_t *>(&heaps); }

} // extern "C"
