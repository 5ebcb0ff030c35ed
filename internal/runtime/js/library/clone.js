// structuredClone.
"use strict";

(host, { part, isBuffer }) => {
  const errors = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const boxes = [Boolean, Number, String, BigInt];

  const refuse = (what) => { throw new (part("errors").DOMException)(`${what} cannot be cloned`, "DataCloneError"); };

  // named returns what a value is called when it cannot be cloned.
  const named = (value) => {
    const { name } = value.constructor ?? {};
    return typeof name === "string" && name !== "" ? `an object of the class ${name}` : "an object";
  };

  const define = (object, name, value) =>
    Object.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });

  function structuredClone(root, options) {
    if (arguments.length === 0) throw new TypeError("structuredClone takes a value");
    const seen = new Map(); // copies, by what they are copies of
    const transfer = new Set(options?.transfer);
    for (const buffer of transfer) {
      if (!(buffer instanceof ArrayBuffer)) refuse("what is transferred must be an ArrayBuffer; anything else");
      if (buffer.detached) refuse("a detached ArrayBuffer");
    }

    const keep = (value, copy) => {
      seen.set(value, copy);
      return copy;
    };

    const properties = (value, copy) => {
      for (const key of Object.keys(value)) {
        Object.defineProperty(copy, key, { value: clone(value[key]), writable: true, configurable: true, enumerable: true });
      }
      return copy;
    };

    const view = (value) => {
      const length = value instanceof DataView ? value.byteLength : value.length;
      const Kind = value instanceof DataView ? DataView : globalThis[value[Symbol.toStringTag]];
      return keep(value, new Kind(clone(value.buffer), value.byteOffset, length));
    };

    const error = (value) => {
      const made = keep(value, new (errors[value.name] ?? Error)());
      if (value.message !== "") define(made, "message", String(value.message));
      define(made, "stack", String(value.stack));
      if (Object.hasOwn(value, "cause")) define(made, "cause", clone(value.cause));
      return made;
    };

    const buffer = (value) => {
      if (!(value instanceof ArrayBuffer)) return keep(value, value); // shared memory stays shared
      if (value.detached) refuse("a detached ArrayBuffer");
      return keep(value, value.slice(0));
    };

    const object = (value) => {
      if (Array.isArray(value)) return properties(value, keep(value, new Array(value.length)));
      if (isBuffer(value)) return buffer(value);
      if (ArrayBuffer.isView(value)) return view(value);
      if (value instanceof Date) return keep(value, new Date(value.getTime()));
      if (value instanceof RegExp) return keep(value, new RegExp(value.source, value.flags));
      if (value instanceof Map) {
        const copy = keep(value, new Map());
        for (const [k, v] of [...value]) copy.set(clone(k), clone(v));
        return copy;
      }
      if (value instanceof Set) {
        const copy = keep(value, new Set());
        for (const item of [...value]) copy.add(clone(item));
        return copy;
      }
      if (value instanceof Error) return error(value);
      for (const Box of boxes) {
        if (value instanceof Box) return keep(value, Object(Box.prototype.valueOf.call(value)));
      }
      for (const Kind of [Promise, WeakMap, WeakSet, WeakRef, Symbol, FinalizationRegistry]) {
        if (value instanceof Kind) refuse(named(value));
      }
      return properties(value, keep(value, {}));
    };

    const clone = (value) => {
      if (typeof value === "function" || typeof value === "symbol") refuse(`a ${typeof value}`);
      if (typeof value !== "object" || value === null) return value;
      return seen.get(value) ?? object(value);
    };

    const copy = clone(root);
    for (const buffer of transfer) buffer.transfer(); // detaches it, now that nothing can fail
    return copy;
  }

  return { structuredClone };
}
