// DOMException is what functions of the web platform throw.
"use strict";

() => {
  const codes = {
    InvalidCharacterError: 5, NotSupportedError: 9, InvalidStateError: 11, SyntaxError: 12, TypeMismatchError: 17,
    AbortError: 20, QuotaExceededError: 22, TimeoutError: 23, DataCloneError: 25,
  };

  class DOMException extends Error {
    #name;

    constructor(message = "", options = "Error") {
      if (typeof options === "object" && options !== null) {
        super(message, options);
        this.#name = String(options.name ?? "Error");
      } else {
        super(message);
        this.#name = String(options);
      }
    }

    get name() { return this.#name; }
    get code() { return codes[this.#name] ?? 0; }
  }

  return { DOMException };
}
