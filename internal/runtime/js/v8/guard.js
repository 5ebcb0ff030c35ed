// Array buffers that can grow, as new ArrayBuffer(1, {maxByteLength: 1 << 30}),
// have memory that V8 asks no allocator for. So what makes them claims the most
// that they can become.
//
// The value is a function of claim, which counts such a buffer until it is
// collected, or throws where that passes the memory limit; it leaves other
// buffers alone.
(claim) => {
  "use strict";

  const { apply, construct } = Reflect;
  const define = (object, name, value) =>
    Object.defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });

  for (const Native of [ArrayBuffer, SharedArrayBuffer]) {
    const Guarded = new Proxy(Native, {
      construct(target, args, newTarget) {
        const buffer = construct(target, args, newTarget);
        if (args.length > 1) claim(buffer);
        return buffer;
      },
    });
    define(globalThis, Native.name, Guarded);
    define(Native.prototype, "constructor", Guarded);
  }

  const { transfer } = ArrayBuffer.prototype;
  define(ArrayBuffer.prototype, "transfer", {
    transfer(...args) {
      const buffer = apply(transfer, this, args);
      claim(buffer);
      return buffer;
    },
  }.transfer);
}
