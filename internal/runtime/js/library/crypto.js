// The part of Web Crypto that functions get: random values and digests.
"use strict";

(host, { part, bytesOf }) => {
  const LIMIT = 65536; // bytes of one call for random values
  const digests = ["SHA-1", "SHA-256", "SHA-384", "SHA-512"];
  const integers = /^(Big)?(Int|Uint)(8|16|32|64)(Clamped)?Array$/;
  const kind = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag).get;

  const refuse = (why, name) => { throw new (part("errors").DOMException)(why, name); };

  const subtle = {
    async digest(algorithm, data) {
      const name = String(algorithm?.name ?? algorithm).toUpperCase();
      if (!digests.includes(name)) refuse(`there is no digest ${name}, only ${digests.join(", ")}`, "NotSupportedError");
      if (data === undefined) throw new TypeError("digest takes an ArrayBuffer or a view of one");
      return host.ask(name, bytesOf(data)).buffer;
    },
  };

  const crypto = {
    subtle,

    getRandomValues(array) {
      if (!integers.test(kind.call(array))) refuse("random values go into arrays of integers alone", "TypeMismatchError");
      if (array.byteLength > LIMIT) refuse(`${array.byteLength} random bytes at once are more than ${LIMIT}`, "QuotaExceededError");
      const bytes = bytesOf(array);
      bytes.set(host.ask("random", bytes));
      return array;
    },

    randomUUID: () => host.decode(host.ask("uuid", new Uint8Array(0)), false),
  };

  return { crypto };
}
