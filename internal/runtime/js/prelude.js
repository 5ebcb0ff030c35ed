// The part of a function's global scope that Nex brings itself: console, the
// text codecs, module.exports, and the rules of which values are functions and
// replies. Each isolate evaluates it once, before the user's script. What most
// functions have no need of is in the library, and loaded when it is used.
//
// Its value is a function. The engine calls it with host, the functions the
// engine offers, and info, the JSON text of what is the same for every call;
// it returns the functions that the engine calls in turn.
//
//   host.print(level, text)    one log record
//   host.encode(string)        Uint8Array of its UTF-8 text
//   host.decode(array, fatal)  string; undefined when fatal and not UTF-8
//   host.ask(what, array)      Uint8Array, or undefined: what package js answers
//   host.now()                 milliseconds since the isolate was made
//   host.load(part)            the value of that script of the library
//   host.header(text)          the headers of this call's reply, as JSON text
//   host.decode copes with every Uint8Array and nothing else.
(host, info) => {
  "use strict";

  const { parse, stringify } = JSON;
  const date = Date.now;
  const DEBUG = -4, INFO = 0, WARN = 4, ERROR = 8;
  const LIMIT = 64 * 1024; // characters of one printed text
  const LONGEST = 0xffffff; // milliseconds of one wait

  const expose = (name, value) => Object.defineProperty(globalThis, name, {
    value, writable: true, configurable: true, enumerable: false,
  });

  // ---- showing values ----

  // frames returns the lines of an error's stack that are the user's, and not
  // too many.
  const frames = (error) => {
    const own = [];
    for (const line of String(error.stack ?? "").split("\n")) {
      if (own.length === 30) return own.concat("    ...");
      if (/^\s+at /.test(line) && !line.includes("nex:prelude")) own.push(line);
    }
    return own;
  };

  const quote = (text) =>
    `'${stringify(text).slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;

  const keyText = (key) =>
    typeof key === "symbol" ? `[${String(key)}]` : /^[A-Za-z_$][\w$]*$/.test(key) ? key : quote(key);

  // inspect returns a readable text of any value, about LIMIT characters at most.
  const inspect = (root) => {
    const above = []; // the objects that contain the one being shown
    let room = LIMIT;

    const cut = (text) => {
      if (text.length > room) text = text.slice(0, Math.max(room, 0)) + "…";
      room -= text.length;
      return text;
    };

    const list = (open, close, parts) =>
      parts.length === 0 ? `${open}${close}` : `${open} ${parts.join(", ")} ${close}`;

    // some shows the items until there are too many.
    const some = (items, count, one) => {
      const parts = [];
      for (const item of items) {
        if (parts.length === 100 || room <= 0) {
          parts.push(`... ${count - parts.length} more`);
          break;
        }
        parts.push(one(item));
      }
      return parts;
    };

    const property = (object, key) => {
      const { get, set, value } = Object.getOwnPropertyDescriptor(object, key);
      const text = get ? (set ? "[Getter/Setter]" : "[Getter]") : set ? "[Setter]" : show(value);
      return `${cut(keyText(key))}: ${text}`;
    };

    const properties = (object, skip) => {
      const keys = Reflect.ownKeys(object).filter((key) =>
        !skip(key) && Object.getOwnPropertyDescriptor(object, key)?.enumerable);
      return some(keys, keys.length, (key) => property(object, key));
    };

    const isIndex = (key) => typeof key === "string" && /^\d+$/.test(key);
    const none = () => false;

    const errorText = (error) => {
      let text = cut([String(error), ...frames(error)].join("\n"));
      if (error.cause !== undefined) text += `\n[cause]: ${show(error.cause)}`;
      return text;
    };

    const contents = (object, name) => {
      if (Array.isArray(object)) {
        const parts = some(object, object.length, show);
        return list(name === "Array" ? "[" : `${name}(${object.length}) [`, "]",
          parts.concat(properties(object, isIndex)));
      }
      if (object instanceof Error) return errorText(object);
      if (object instanceof Date) return isNaN(object) ? "Invalid Date" : object.toISOString();
      if (object instanceof RegExp) return cut(String(object));
      if (object instanceof Map) {
        const pair = ([key, value]) => `${show(key)} => ${show(value)}`;
        return list(`${name}(${object.size}) {`, "}", some(object, object.size, pair));
      }
      if (object instanceof Set) return list(`${name}(${object.size}) {`, "}", some(object, object.size, show));
      if (object instanceof ArrayBuffer) return `${name} { byteLength: ${object.byteLength} }`;
      if (ArrayBuffer.isView(object) && !(object instanceof DataView)) {
        return list(`${name}(${object.length}) [`, "]", some(object, object.length, show));
      }
      return list(name === "Object" ? "{" : `${name} {`, "}", properties(object, none));
    };

    const nested = (object) => {
      const prototype = Object.getPrototypeOf(object);
      const name = prototype === null ? "[Object: null prototype]" : String(prototype.constructor?.name || "Object");
      if (above.includes(object)) return "[Circular]";
      if (above.length > 5) return `[${name}]`;
      above.push(object);
      try {
        return contents(object, name);
      } finally {
        above.pop();
      }
    };

    const show = (value) => {
      switch (typeof value) {
        case "string": return cut(quote(value.length > room ? value.slice(0, Math.max(room, 0) + 1) : value));
        case "bigint": return cut(`${value}n`);
        case "function": {
          const sort = /^class\b/.test(Function.prototype.toString.call(value)) ? "class" : "Function";
          return cut(value.name ? `[${sort}: ${value.name}]` : `[${sort} (anonymous)]`);
        }
        case "object": return value === null ? "null" : nested(value);
        default: return Object.is(value, -0) ? "-0" : cut(String(value));
      }
    };

    try {
      return show(root);
    } catch (error) {
      return "[a value that cannot be shown]";
    }
  };

  const clip = (text) => text.length > LIMIT ? text.slice(0, LIMIT) + "…" : text;
  const plain = (value) => typeof value === "string" ? clip(value) : inspect(value);

  const verbs = {
    s: (value) => plain(value),
    d: (value) => typeof value === "bigint" ? `${value}n` : String(Number(value)),
    i: (value) => typeof value === "bigint" ? `${value}n` : String(parseInt(value, 10)),
    f: (value) => String(parseFloat(value)),
    j: (value) => {
      try {
        return String(stringify(value));
      } catch {
        return inspect(value);
      }
    },
    o: inspect,
    O: inspect,
    c: () => "",
  };

  // format joins the arguments of a console call to one text.
  const format = (args) => {
    let next = 0;
    let text = "";
    if (typeof args[0] === "string") {
      next = 1;
      text = clip(args[0]).replace(/%([sdifjoOc%])/g, (whole, verb) => {
        if (verb === "%") return args.length > 1 ? "%" : whole;
        if (next >= args.length) return whole;
        const value = args[next++];
        return typeof value === "symbol" ? String(value) : verbs[verb](value);
      });
    }
    for (; next < args.length && text.length <= LIMIT; next++) {
      text += (next > 0 ? " " : "") + plain(args[next]);
    }
    return clip(text);
  };

  // ---- console ----

  const printer = (level) => (...args) => host.print(level, format(args));
  const log = printer(INFO);
  const error = printer(ERROR);
  const counts = new Map();
  const timers = new Map();

  const elapsed = (label) => `${label}: ${Date.now() - (timers.get(label) ?? Date.now())}ms`;

  expose("console", {
    log, error,
    info: log, dir: (value) => log(value), dirxml: log, table: log, group: log, groupCollapsed: log,
    warn: printer(WARN),
    debug: printer(DEBUG),
    trace: (...args) => {
      const lines = frames(new Error());
      host.print(DEBUG, [`Trace: ${format(args)}`, ...lines].join("\n"));
    },
    assert: (condition, ...args) => {
      if (condition) return;
      if (typeof args[0] === "string") args[0] = `Assertion failed: ${args[0]}`;
      else args.unshift("Assertion failed");
      error(...args);
    },
    count: (label = "default") => {
      counts.set(label, (counts.get(label) ?? 0) + 1);
      log(`${label}: ${counts.get(label)}`);
    },
    countReset: (label = "default") => void counts.delete(label),
    time: (label = "default") => void timers.set(label, Date.now()),
    timeLog: (label = "default", ...args) => log(elapsed(label), ...args),
    timeEnd: (label = "default") => {
      log(elapsed(label));
      timers.delete(label);
    },
    groupEnd: () => {},
    clear: () => {},
  });

  // ---- text codecs ----

  const isBuffer = (value) => value instanceof ArrayBuffer || value instanceof SharedArrayBuffer;

  const bytesOf = (input) => {
    if (input === undefined) return new Uint8Array(0);
    if (ArrayBuffer.isView(input)) return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
    if (isBuffer(input)) return new Uint8Array(input);
    throw new TypeError("the input must be an ArrayBuffer or a view of one");
  };

  // unfinished returns how many bytes at the end begin a character that is not
  // complete.
  const unfinished = (bytes) => {
    for (let n = 1; n <= 3 && n <= bytes.length; n++) {
      const byte = bytes[bytes.length - n];
      if (byte < 0x80) return 0;
      if (byte >= 0xc0) return n < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? n : 0;
    }
    return 0;
  };

  expose("TextEncoder", class TextEncoder {
    get encoding() { return "utf-8"; }

    encode(text = "") { return host.encode(String(text)); }

    encodeInto(text, target) {
      text = String(text);
      let bytes = host.encode(text);
      if (bytes.length <= target.length) {
        target.set(bytes);
        return { read: text.length, written: bytes.length };
      }
      bytes = bytes.subarray(0, target.length);
      bytes = bytes.subarray(0, bytes.length - unfinished(bytes));
      target.set(bytes);
      return { read: host.decode(bytes, false).length, written: bytes.length };
    }
  });

  expose("TextDecoder", class TextDecoder {
    #fatal;
    #keepMark;
    #rest = new Uint8Array(0); // bytes of an unfinished character
    #begun = false; // whether text of this stream came out already

    constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
      if (!["utf-8", "utf8", "unicode-1-1-utf-8"].includes(String(label).trim().toLowerCase())) {
        throw new RangeError(`the encoding ${label} is not supported, only utf-8 is`);
      }
      this.#fatal = Boolean(fatal);
      this.#keepMark = Boolean(ignoreBOM);
    }

    get encoding() { return "utf-8"; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#keepMark; }

    decode(input, { stream = false } = {}) {
      let bytes = bytesOf(input);
      if (this.#rest.length > 0) {
        const joined = new Uint8Array(this.#rest.length + bytes.length);
        joined.set(this.#rest);
        joined.set(bytes, this.#rest.length);
        bytes = joined;
      }
      const end = bytes.length - (stream ? unfinished(bytes) : 0);
      this.#rest = bytes.slice(end);
      const begun = this.#begun;
      this.#begun = stream && (begun || end > 0);

      const text = host.decode(bytes.subarray(0, end), this.#fatal);
      if (text === undefined) throw new TypeError("the bytes are not valid UTF-8");
      return !begun && !this.#keepMark && text.charCodeAt(0) === 0xfeff ? text.slice(1) : text;
    }
  });

  // ---- the library ----

  // explain returns three texts about what was thrown: the message, the place
  // as file:line:column or nothing, and the stack.
  const explain = (thrown) => {
    const parts = ["an exception that cannot be shown", "", ""];
    try {
      parts[0] = thrown instanceof Error ? String(thrown) : plain(thrown);
      if (thrown instanceof Error) {
        const stack = frames(thrown);
        parts[1] = /(?:\(|at )([^(\n]*:\d+:\d+)\)?$/m.exec(stack.join("\n"))?.[1] ?? "";
        if (thrown.cause !== undefined) stack.push(`[cause]: ${plain(thrown.cause)}`);
        parts[2] = stack.join("\n");
      }
    } catch {}
    return parts;
  };

  const globals = {
    base64: ["atob", "btoa"],
    clone: ["structuredClone"],
    crypto: ["crypto"],
    errors: ["DOMException"],
    events: ["Event", "EventTarget", "AbortController", "AbortSignal"],
    fetch: ["fetch", "Response"],
    headers: ["Headers"],
    services: ["hostServices"],
    timers: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "queueMicrotask", "performance"],
    url: ["URL", "URLSearchParams"],
  };

  const loaded = { __proto__: null };
  let slot = 0; // of the call that has the turn
  let latest = Infinity; // the latest deadline of the calls that are in the isolate
  const part = (name) => loaded[name] ??= host.load(name)(host, tools);
  const tools = {
    part, bytesOf, isBuffer, parse, stringify, LONGEST,

    // slot returns that of the call that has the turn.
    slot: () => slot,

    // left returns how many milliseconds the calls in the isolate have left.
    left: () => latest - date(),

    // report logs what was thrown where no call takes it.
    report(thrown) {
      const [message, where, stack] = explain(thrown);
      host.print(ERROR, (where && `${where}: `) + message + (stack && `\n${stack}`));
    },
  };

  for (const name of Object.keys(globals)) {
    for (const key of globals[name]) {
      Object.defineProperty(globalThis, key, {
        configurable: true,
        enumerable: false,
        get() {
          const value = part(name)[key];
          expose(key, value);
          return value;
        },
        set(value) { expose(key, value); },
      });
    }
  }

  // ---- what the engine calls ----

  const commonjs = { exports: {} };
  expose("module", commonjs);
  expose("exports", commonjs.exports);

  const kind = (value) => {
    if (value === undefined || value === null) return String(value);
    if (Array.isArray(value)) return "an array";
    return `${typeof value === "object" ? "an" : "a"} ${typeof value}`;
  };

  // body returns a reply's payload as a string or typed array.
  const body = (value) => {
    if (value === undefined || value === null) return "";
    if (typeof value === "string") return value;
    if (ArrayBuffer.isView(value) || isBuffer(value)) return bytesOf(value);
    if (typeof value.then === "function") throw "it is a promise: await it before ctx.respond";
    const text = stringify(value);
    if (text === undefined) throw `it is ${kind(value)}`;
    return text;
  };

  // headerText returns a reply's headers as JSON text of arrays of strings.
  const headerText = (headers) => {
    if (typeof headers !== "object") throw `its headers are ${kind(headers)}, not an object`;
    const all = { __proto__: null };
    const add = (name, value) => {
      if (typeof value === "number" || typeof value === "boolean") value = String(value);
      if (!/^[!-9;-~]+$/.test(name)) throw `${quote(clip(name))} is no name of a header`;
      if (typeof value !== "string") throw `the header ${name} is ${kind(value)}, not a string`;
      if (/[\r\n\0]|^[ \t]|[ \t]$/.test(value)) throw `the header ${name} has a line break, a NUL, or space around it`;
      (all[name] ??= []).push(value);
    };
    const pairs = typeof headers[Symbol.iterator] === "function" ? headers : Object.entries(headers);
    for (const [name, value] of pairs) {
      for (const one of Array.isArray(value) ? value : [value]) add(String(name), one);
    }
    return stringify(all);
  };

  // Answer is a reply with headers: what ctx.respond returns.
  class Answer {
    #value;
    #headers;

    constructor(value, headers) {
      this.#value = value;
      this.#headers = headers ?? undefined;
    }

    // open returns the body of value, which may be any, and tells the engine
    // its headers.
    static open(value) {
      if (typeof value !== "object" || !(#value in value)) return body(value);
      const payload = body(value.#value);
      if (value.#headers !== undefined) host.header(headerText(value.#headers));
      return payload;
    }
  }

  // Context is the third argument of calls. One is made for each call, so that
  // must be cheap; what calls have in common is in the prototype.
  function Context(subject, payload, reply, deadline, place, headers) {
    if (place < 0) {
      slot = 0;
      latest = deadline;
      if (loaded.timers !== undefined) loaded.timers.drop(); // those of calls before
      if (loaded.services !== undefined) loaded.services.drop(); // likewise
    } else {
      slot = place;
      if (deadline > latest) latest = deadline;
    }
    this.subject = subject;
    this.payload = payload;
    this.reply = reply;
    this.deadline = deadline;
    if (headers !== undefined) withHeaders(this, headers);
  }
  const { env, namespace, workload, id } = parse(info);
  Context.prototype = {
    respond: (value, options) => new Answer(value, options?.headers),
    headers: Object.freeze({}),
    env: Object.freeze(env), namespace, workload, id,
    text() { return host.decode(this.payload, false); },
    json() { return parse(this.text()); },
  };

  // withHeaders gives context headers that are parsed when they are looked at.
  const withHeaders = (context, text) => Object.defineProperty(context, "headers", {
    configurable: true,
    enumerable: true,
    get() {
      const value = parse(text);
      Object.defineProperty(this, "headers", { value, writable: true });
      return value;
    },
  });

  // next returns what tick does, where timer is what the timers say.
  const next = (timer) =>
    timer === -1 && loaded.services !== undefined && loaded.services.waits() ? LONGEST * 64 : timer;

  return {
    // entry finds the function in what the script evaluated to: a value, or
    // the namespace of a module.
    entry(value) {
      const { exports } = commonjs;
      for (const candidate of [value, value?.default, exports, exports?.default]) {
        if (typeof candidate === "function") return candidate;
      }
      const module = value?.[Symbol.toStringTag] === "Module";
      const what = module ? "the module's default export" : "the script's last value";
      throw `${what} must be a function, as in (subject, payload) => payload; it is ${kind(module ? value.default : value)}`;
    },

    // Context is a constructor. place is the slot of the call, or -1 when no
    // other one is in the isolate; headers is JSON text, or undefined.
    Context,

    // settle returns a promise for what has a then method, and any other
    // object as it is.
    settle: (object) => typeof object.then === "function" ? new Promise((done) => done(object)) : object,

    // encode returns the reply of a value that is none of string, undefined,
    // null, ArrayBuffer and typed array, as a string or typed array.
    encode: Answer.open,

    // tick does what is due: it passes on what a host service answered, or runs
    // a timer, and returns -2. It does only what belongs to the call in the slot
    // whose turn it is, unless any. When there is nothing for that it returns the
    // milliseconds until the next timer, which an answer may cut short, times 64,
    // and the slot of that; or -1 when there is nothing to wait for.
    tick(turn, any) {
      slot = turn;
      const { services, timers } = loaded;
      if (services !== undefined && services.waits() && services.deliver()) return -2;
      return next(timers === undefined ? -1 : timers.tick(any ? -1 : turn));
    },

    // next returns what tick would, but does nothing.
    next: () => next(loaded.timers === undefined ? -1 : loaded.timers.next()),

    // explain returns what explain does, joined by NUL.
    explain: (thrown) => explain(thrown).map((text) => text.replaceAll("\0", "")).join("\0"),
  };
}
