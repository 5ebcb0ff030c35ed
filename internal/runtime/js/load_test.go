package js_test

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"nex"
	"nex/internal/runtime"
	"nex/internal/runtime/js"
)

func TestSourceForms(t *testing.T) {
	tests := []struct{ name, code string }{
		{"arrow", `(subject, payload) => "ok"`},
		{"arrow with semicolon", `(subject, payload) => { return "ok" };`},
		{"comments around", "// first\n/* second */\n(subject, payload) => \"ok\"; // last\n"},
		{"function in parentheses", `(function (subject, payload) { return "ok" })`},
		{"async function", `(async function () { return "ok" })`},
		{"named last", "function handler() { return \"ok\" }\nhandler"},
		{"helpers before", "const reply = \"ok\"; function make() { return () => reply }\nmake()"},
		{"byte order mark", "\ufeff() => \"ok\""},
		{"interpreter line", "#!/usr/bin/env node\n() => \"ok\""},
		{"Windows lines", "const a = \"ok\";\r\n() => a;\r\n"},
		{"strict", `"use strict"; () => "ok"`},
		{"module", `export default (subject, payload) => "ok"`},
		{"module with function", "const a = \"ok\";\n\nexport default function (subject) { return a }"},
		{"module with await", `const a = await Promise.resolve("ok"); export default () => a`},
		{"module with exports", `export const a = 1; const f = () => "ok"; export { f as default }`},
		{"module.exports", `module.exports = () => "ok"`},
		{"module.exports not last", "module.exports = () => \"ok\";\n1;"},
		{"exports.default", "exports.default = () => \"ok\";\nexports.other = 1;"},
		{"compiled module", `Object.defineProperty(exports, "__esModule", {value: true}); exports.default = () => "ok"; 0`},
		{"own module variable", `const module = 1; () => "ok"`},
		{"words of modules", `const text = "import and export"; () => "ok"`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) { load(t, e, tt.code).wantReply(t, "s", "p", "ok") })
		}
	})
}

func TestRefusedSources(t *testing.T) {
	const help = "must be a function, as in \\(subject, payload\\) => payload; it is "
	tests := []struct{ name, code, want string }{
		{"syntax", "(subject, payload) => {\n\n  const a = ;\n}", `^echo\.js:3:\d+: SyntaxError: `},
		{"unfinished", "(subject, payload) => {", `^echo\.js:\d+:\d+: SyntaxError: `},
		{"module syntax", "export default () => 1;\nconst a = ;", `^echo\.js:2:\d+: SyntaxError: `},
		{"throw", "const a = 1;\n  throw new RangeError('no\\nway')", `^echo\.js:2:\d+: RangeError: no way$`},
		{"throw in function", "function f() {\n throw new Error('deep') }\n\nf()", `^echo\.js:2:\d+: Error: deep$`},
		{"throw in module", "export default () => 1;\n\nthrow new Error('mod')", `^echo\.js:3:\d+: Error: mod$`},
		{"throw a string", `throw "no"`, `^echo\.js: no$`},
		{"missing name", "() => 1;\nnothing.at.all", `^echo\.js:2:\d+: ReferenceError: `},
		{"require", `const fs = require("fs"); () => 1`, `^echo\.js:1:\d+: ReferenceError: `},
		{"number", `42`, `^echo\.js: the script's last value ` + help + `a number$`},
		{"nothing", ``, `^echo\.js: the script's last value ` + help + `undefined$`},
		{"declaration", `function f() {}`, help + `undefined$`},
		{"object", `({a: 1})`, help + `an object$`},
		{"array", `[1]`, help + `an array$`},
		{"null", `null`, help + `null$`},
		{"no default", `export const a = 1`, `^echo\.js: the module's default export ` + help + `undefined$`},
		{"default number", `export default 7`, help + `a number$`},
		{"import", "import fs from 'fs';\nexport default () => 1", `^echo\.js.*cannot import 'fs'`},
		{"import of std", `import * as std from 'std'; export default () => 1`, `cannot import 'std'`},
		{"import of os", `import * as os from "os"; export default () => 1`, `cannot import 'os'`},
		{"never settles", `await new Promise(() => {}); export default () => 1`, `^echo\.js: the module awaits a promise that never settles$`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				_, err := tryLoad(t, e, tt.code)
				wantCode(t, err, nex.Invalid)
				if err != nil && (!regexp.MustCompile(tt.want).MatchString(err.Error()) || strings.Contains(err.Error(), "\n")) {
					t.Errorf("error %q, want one line that matches %s", err, tt.want)
				}
			})
		}
	})
}

func TestLoadIsBounded(t *testing.T) {
	tests := []struct {
		name, code string
		want       nex.Code
	}{
		{"loop", `for (;;) {}`, nex.Timeout},
		{"module loop", `export default 1; for (;;) {}`, nex.Timeout},
		{"job loop", `const f = () => { Promise.resolve().then(f) }; f(); () => 1`, nex.Timeout},
		{"memory", `const a = []; for (;;) a.push({})`, nex.OutOfMemory},
		{"code larger than memory", "() => 1 //" + strings.Repeat("x", 9<<20), nex.OutOfMemory},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				o := js.Options{Name: "echo.js", Code: []byte(tt.code), MemoryLimit: 8 << 20, Log: (&recorder{}).log}
				patience := callTime
				if tt.want == nex.Timeout {
					patience = 100 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				_, err := js.Load(ctx, e, o)
				wantCode(t, err, tt.want)
				if err != nil && !strings.HasPrefix(err.Error(), "echo.js: ") {
					t.Errorf("error %q does not begin with the file", err)
				}
			})
		}
	})
}

func TestOptions(t *testing.T) {
	log := (&recorder{}).log
	tests := []struct {
		name string
		o    js.Options
		want nex.Code
	}{
		{"no log", js.Options{Code: []byte(`() => 1`)}, nex.Internal},
		{"negative memory", js.Options{Code: []byte(`() => 1`), Log: log, MemoryLimit: -1}, nex.Invalid},
		{"negative concurrency", js.Options{Code: []byte(`() => 1`), Log: log, MaxConcurrency: -1}, nex.Invalid},
		{"too little memory", js.Options{Code: []byte(`() => 1`), Log: log, MemoryLimit: 1000}, nex.OutOfMemory},
		{"little memory", js.Options{Code: []byte(`() => 1`), Log: log, MemoryLimit: 150_000}, nex.OutOfMemory},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				_, err := js.Load(t.Context(), e, tt.o)
				wantCode(t, err, tt.want)
			})
		}
		t.Run("no name", func(t *testing.T) {
			_, err := tryLoad(t, e, `7`, func(o *js.Options) { o.Name = "" })
			if err == nil || !strings.HasPrefix(err.Error(), "function.js: ") {
				t.Errorf("error %v does not name function.js", err)
			}
		})
	})
}

func TestIsolation(t *testing.T) {
	const names = `["std", "os", "process", "require", "Deno", "Bun", "load", "print", "scriptArgs", "bjs", "__loadScript", "read", "quit"]`
	tests := []struct{ name, code, want string }{
		{"no way out", `() => ` + names + `.filter((name) => name in globalThis)`, `[]`},
		{"no import", `async () => { try { await import("os"); return "imported" } catch (e) { return e instanceof ReferenceError ? e.message : String(e) } }`,
			"cannot import 'os': a function is one file, bundle what it needs into it"},
		{"no import of itself", `async () => { try { await import("./echo.js"); return "imported" } catch (e) { return "refused" } }`, "refused"},
		{"no waiting", `() => { try { return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0) } catch (e) { return e.name } }`, "TypeError"},
		{"hidden globals", `() => Object.keys(globalThis)`, `[]`},
	}
	each(t, func(t *testing.T, e js.Engine) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) { load(t, e, tt.code).wantReply(t, "s", "p", tt.want) })
		}
	})
}

func TestFunctionsShareNothing(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		a := load(t, e, `globalThis.secret = 1; Array.prototype.leak = 1; () => secret`)
		b := load(t, e, `() => [typeof secret, typeof [].leak]`)
		a.wantReply(t, "s", "p", "1")
		b.wantReply(t, "s", "p", `["undefined","undefined"]`)
	})
}

func TestPanicWhileAnIsolateIsReplaced(t *testing.T) {
	each(t, func(t *testing.T, e js.Engine) {
		var loads int
		f := load(t, e, `console.log("load"); (s) => { if (s === "stop") for (;;) {} }`, func(o *js.Options) {
			log := o.Log
			o.Log = func(level slog.Level, text string) {
				loads++
				log(level, text)
				if loads == 2 {
					panic(errors.New("second load"))
				}
			}
			o.MaxConcurrency = 1
		})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := f.Invoke(ctx, runtime.Trigger{Subject: "stop"})
		wantCode(t, err, nex.Timeout)
		_, err = f.call("s", "p")
		wantCode(t, err, nex.Internal)
		f.wantReply(t, "s", "p", "")
	})
}

func FuzzLoad(f *testing.F) {
	for _, code := range []string{
		`(s, p) => p`, `export default 1`, `import a from "a"`, `(`, "\x00", "\xff\xfe", "/[/", "`${", `async () => { await`, "#!x",
		`class A { #a; static { } }`, `"\u{110000}"`, `for await (x of y);`, `new.target`, `0x`, `1n.a`, `a?.b??=c`, `label: { break label }`,
		`function* f() { yield* f() }`, `({__proto__: null, "__proto__": 1})`, `/(?<a>.)\k<a>/u`, `throw {get message() { throw 1 }}`,
	} {
		f.Add(code)
	}
	all := engines(f)
	f.Fuzz(func(t *testing.T, code string) {
		for name, e := range all {
			if err := runOnce(t.Context(), e, code); nex.CodeOf(err) == nex.Internal {
				t.Errorf("%s: %q: %v", name, code, err)
			}
		}
	})
}

// runOnce loads code and calls it once.
func runOnce(ctx context.Context, e js.Engine, code string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	o := js.Options{Name: "fuzz.js", Code: []byte(code), MemoryLimit: 16 << 20, Log: (&recorder{}).log}
	f, err := js.Load(ctx, e, o)
	if err != nil {
		return err
	}
	_, err = f.Invoke(ctx, runtime.Trigger{Subject: "s", Payload: []byte("p")})
	return errors.Join(err, f.Close(context.WithoutCancel(ctx)))
}
