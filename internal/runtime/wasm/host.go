package wasm

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"nex"
	"nex/internal/runtime"
)

// Host services are two functions of the module hostModule: callImport asks and
// returns the size of the answer, which the instance keeps until answerImport
// fetches it.
const (
	hostModule   = "nex"
	callImport   = "call"
	answerImport = "answer"
)

// maxMessage is the size of the largest request and of the largest answer, as
// they lie in the module's memory: 64 MiB and room for headers.
const maxMessage = 65 << 20

// offer gives the engine the functions for host services.
func offer(ctx context.Context, engine wazero.Runtime) error {
	b := engine.NewHostModuleBuilder(hostModule)
	i32 := []api.ValueType{api.ValueTypeI32}
	i32s := []api.ValueType{api.ValueTypeI32, api.ValueTypeI32}
	b.NewFunctionBuilder().WithGoFunction(api.GoFunc(callHost), i32s, i32).Export(callImport)
	b.NewFunctionBuilder().WithGoFunction(api.GoFunc(fetchAnswer), i32, nil).Export(answerImport)
	_, err := b.Instantiate(ctx)
	return err
}

// wantsHost reports whether a module imports anything of hostModule.
func wantsHost(module wazero.CompiledModule) bool {
	for _, def := range module.ImportedFunctions() {
		if from, _, _ := def.Import(); from == hostModule {
			return true
		}
	}
	return false
}

// callHost is the import nex.call(request, size i32) -> i32.
func callHost(ctx context.Context, stack []uint64) {
	i := caller(ctx)
	i.answer = answer{} // gives up the room of one that was not fetched, before the wait
	request, ok := i.memory.window(uint32(stack[0]), uint32(stack[1]))
	if !ok {
		panic(errors.New("nex.call: the request is outside of memory"))
	}
	i.answer = i.ask(request)
	stack[0] = uint64(i.answer.size())
}

// fetchAnswer is the import nex.answer(to i32).
func fetchAnswer(ctx context.Context, stack []uint64) {
	i := caller(ctx)
	a := i.answer
	i.answer = answer{}
	if a.size() == 0 {
		panic(errors.New("nex.answer: there is no answer to fetch"))
	}
	to, ok := i.memory.window(uint32(stack[0]), a.size())
	if !ok {
		panic(fmt.Errorf("nex.answer: the place for the answer of %d bytes is outside of memory", a.size()))
	}
	copy(to[copy(to, a.head):], a.payload)
}

// ask passes a request on to the host and waits for the answer. Code burns no
// fuel meanwhile. When the instance is stopped the call of the module does not
// return: the panic ends it, and the engine makes it the error of the call.
func (i *instance) ask(request []byte) answer {
	if len(request) > maxMessage {
		return answerError(nex.Errorf(nex.TooLarge, "the request of %s is over the limit of %s",
			mebibytes(uint64(len(request))), mebibytes(maxMessage)))
	}
	q, err := readQuestion(request)
	if err != nil {
		return answerError(err)
	}
	if q.service == ownService {
		return i.own(q)
	}
	ctx, cancel := context.WithCancel(i.calling)
	defer cancel()
	i.onInterrupt(cancel)
	m, err := i.f.host.Call(ctx, q.service, q.method, q.message)
	i.onInterrupt(nil)
	if ctx.Err() != nil {
		i.interrupt(errStopped)
		panic(errStopped)
	}
	if err != nil {
		return answerError(err)
	}
	a := answerOf(m)
	if limit := min(maxMessage, i.f.memory); uint64(len(a.head))+uint64(len(a.payload)) > limit {
		return answerError(nex.Errorf(nex.TooLarge, "the answer of %s is over the limit of %s",
			mebibytes(uint64(len(a.head))+uint64(len(a.payload))), mebibytes(limit)))
	}
	return a
}

// ownService is the service about the message that the function answers. It is
// here, and no host is asked.
const ownService = "message"

// own answers a request to ownService.
func (i *instance) own(q question) answer {
	switch q.method {
	case "get":
		args := map[string]string{"subject": i.trigger.Subject, "reply": i.trigger.Reply}
		if due, ok := i.calling.Deadline(); ok {
			args["deadline_ms"] = strconv.FormatInt(due.UnixMilli(), 10)
		}
		return answerOf(runtime.Message{Args: args, Header: i.trigger.Header})
	case "respond":
		i.header = q.message.Header
		return answerOf(runtime.Message{})
	}
	return answerError(nex.Errorf(nex.Unsupported, "the service %s has no method %s", ownService, q.method))
}

// onInterrupt sets what interrupt calls besides, nil for nothing. If the
// instance has been interrupted already, it is called now.
func (i *instance) onInterrupt(cancel context.CancelFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.cancel = cancel
	if i.cause != nil && cancel != nil {
		cancel()
	}
}
