// Events, and the signals that abort what takes one.
"use strict";

(host, { part, report }) => {
  let begin, immediate; // what EventTarget does with events

  class Event {
    #type;
    #cancelable;
    #prevented = false;
    #stopped = false;
    #target = null;

    static {
      begin = (event, on) => { event.#target = on; };
      immediate = (event) => event.#stopped;
    }

    constructor(type, { cancelable = false } = {}) {
      this.#type = String(type);
      this.#cancelable = Boolean(cancelable);
    }

    get type() { return this.#type; }
    get target() { return this.#target; }
    get currentTarget() { return this.#target; }
    get cancelable() { return this.#cancelable; }
    get defaultPrevented() { return this.#prevented; }
    preventDefault() { this.#prevented = this.#cancelable; }
    stopPropagation() {}
    stopImmediatePropagation() { this.#stopped = true; }
  }

  class EventTarget {
    #listeners = [];

    addEventListener(type, callback, options) {
      if (callback === undefined || callback === null) return;
      const { once = false, signal } = typeof options === "object" && options !== null ? options : {};
      if (signal?.aborted || this.#listeners.some((l) => l.type === type && l.callback === callback)) return;
      this.#listeners.push({ type: String(type), callback, once });
      signal?.addEventListener("abort", () => this.removeEventListener(type, callback));
    }

    removeEventListener(type, callback) {
      this.#listeners = this.#listeners.filter((l) => l.type !== type || l.callback !== callback);
    }

    dispatchEvent(event) {
      begin(event, this);
      const listeners = this.#listeners.filter((l) => l.type === event.type);
      const handler = this[`on${event.type}`];
      if (typeof handler === "function") listeners.unshift({ callback: handler });
      for (const { callback, once } of listeners) {
        if (immediate(event)) break;
        if (once) this.removeEventListener(event.type, callback);
        try {
          if (typeof callback === "function") callback.call(this, event);
          else callback.handleEvent(event);
        } catch (error) {
          report(error);
        }
      }
      return !event.defaultPrevented;
    }
  }

  let create, abort; // what only this file may do with signals
  const reasonOf = (reason, why, name) => reason === undefined ? new (part("errors").DOMException)(why, name) : reason;

  class AbortSignal extends EventTarget {
    #aborted = false;
    #reason;
    onabort = null;

    static #own = false;

    static {
      create = () => {
        AbortSignal.#own = true;
        try {
          return new AbortSignal();
        } finally {
          AbortSignal.#own = false;
        }
      };
      abort = (signal, reason) => {
        if (signal.#aborted) return;
        signal.#aborted = true;
        signal.#reason = reasonOf(reason, "the operation was aborted", "AbortError");
        signal.dispatchEvent(new Event("abort"));
      };
    }

    constructor() {
      if (!AbortSignal.#own) throw new TypeError("an AbortSignal comes from an AbortController");
      super();
    }

    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    throwIfAborted() {
      if (this.#aborted) throw this.#reason;
    }

    static abort(reason) {
      const signal = create();
      abort(signal, reason);
      return signal;
    }

    static timeout(delay) {
      const signal = create();
      part("timers").setTimeout(() => abort(signal, reasonOf(undefined, "the operation timed out", "TimeoutError")), delay);
      return signal;
    }

    static any(signals) {
      const signal = create();
      for (const one of signals) {
        if (one.aborted) abort(signal, one.reason);
        else one.addEventListener("abort", () => abort(signal, one.reason));
      }
      return signal;
    }
  }

  class AbortController {
    #signal = create();

    get signal() { return this.#signal; }
    abort(reason) { abort(this.#signal, reason); }
  }

  return { Event, EventTarget, AbortSignal, AbortController };
}
