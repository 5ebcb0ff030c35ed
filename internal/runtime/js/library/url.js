// URL and URLSearchParams. The host parses URLs.
"use strict";

(host, { parse, stringify }) => {
  // ask returns the parts of a URL: href, protocol, username, password, host,
  // hostname, port, pathname, search, hash; or undefined when it is none.
  const ask = (what, ...args) => {
    const answer = host.ask(what, host.encode(stringify(args)));
    return answer === undefined ? undefined : parse(host.decode(answer, false));
  };

  // ---- URLSearchParams ----

  const hex = (byte) => byte >= 48 && byte <= 57 ? byte - 48 : (byte | 32) >= 97 && (byte | 32) <= 102 ? (byte | 32) - 87 : -1;

  const unescape = (text) => {
    text = text.replaceAll("+", " ");
    if (!text.includes("%")) return text;
    const bytes = host.encode(text);
    let to = 0;
    for (let from = 0; from < bytes.length; from++) {
      const high = bytes[from] === 37 && from + 2 < bytes.length ? hex(bytes[from + 1]) : -1;
      const low = high >= 0 ? hex(bytes[from + 2]) : -1;
      if (low < 0) {
        bytes[to++] = bytes[from];
      } else {
        bytes[to++] = 16 * high + low;
        from += 2;
      }
    }
    return host.decode(bytes.subarray(0, to), false);
  };

  const escape = (text) => encodeURIComponent(text).replace(/[!'()~]|%20/g, (found) =>
    found === "%20" ? "+" : `%${found.charCodeAt(0).toString(16).toUpperCase()}`);

  const split = (query) => {
    const pairs = [];
    for (const part of query.split("&")) {
      if (part === "") continue;
      const at = part.indexOf("=");
      pairs.push(at < 0 ? [unescape(part), ""] : [unescape(part.slice(0, at)), unescape(part.slice(at + 1))]);
    }
    return pairs;
  };

  const wellFormed = (value) => String(value).toWellFormed();

  const pairsOf = (init) => {
    if (typeof init !== "object" || init === null) return split(wellFormed(init).replace(/^\?/, ""));
    if (typeof init[Symbol.iterator] !== "function") {
      return Object.keys(init).map((name) => [wellFormed(name), wellFormed(init[name])]);
    }
    return Array.from(init, (pair) => {
      pair = [...pair];
      if (pair.length !== 2) throw new TypeError("each pair of URLSearchParams must have a name and a value");
      return pair.map(wellFormed);
    });
  };

  let watch, replace; // what URL does with its searchParams

  class URLSearchParams {
    #pairs;
    #changed = () => {};

    static {
      watch = (params, changed) => { params.#changed = changed; };
      replace = (params, query) => { params.#pairs = split(query); };
    }

    constructor(init = "") { this.#pairs = pairsOf(init); }

    get size() { return this.#pairs.length; }

    append(name, value) {
      this.#pairs.push([wellFormed(name), wellFormed(value)]);
      this.#changed();
    }

    delete(name, value) {
      name = wellFormed(name);
      this.#pairs = this.#pairs.filter((pair) => pair[0] !== name || (value !== undefined && pair[1] !== wellFormed(value)));
      this.#changed();
    }

    get(name) {
      name = wellFormed(name);
      return this.#pairs.find((pair) => pair[0] === name)?.[1] ?? null;
    }

    getAll(name) {
      name = wellFormed(name);
      return this.#pairs.filter((pair) => pair[0] === name).map((pair) => pair[1]);
    }

    has(name, value) {
      name = wellFormed(name);
      return this.#pairs.some((pair) => pair[0] === name && (value === undefined || pair[1] === wellFormed(value)));
    }

    set(name, value) {
      name = wellFormed(name);
      const first = this.#pairs.find((pair) => pair[0] === name);
      if (first === undefined) return this.append(name, value);
      first[1] = wellFormed(value);
      this.#pairs = this.#pairs.filter((pair) => pair === first || pair[0] !== name);
      this.#changed();
    }

    sort() {
      this.#pairs.sort(([a], [b]) => a < b ? -1 : a > b ? 1 : 0);
      this.#changed();
    }

    forEach(callback, self) {
      for (const [name, value] of this) callback.call(self, value, name, this);
    }

    *entries() {
      for (let at = 0; at < this.#pairs.length; at++) yield [...this.#pairs[at]];
    }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    [Symbol.iterator]() { return this.entries(); }

    toString() { return this.#pairs.map(([name, value]) => `${escape(name)}=${escape(value)}`).join("&"); }
    get [Symbol.toStringTag]() { return "URLSearchParams"; }
  }

  // ---- URL ----

  const read = (url, base) => ask("url", String(url), base === undefined ? null : String(base));

  class URL {
    #parts;
    #params;

    constructor(url, base) {
      this.#parts = read(url, base);
      if (this.#parts === undefined) throw new TypeError(`Invalid URL: ${String(url).slice(0, 200)}`);
    }

    static canParse(url, base) { return read(url, base) !== undefined; }
    static parse(url, base) {
      try {
        return new URL(url, base);
      } catch {
        return null;
      }
    }

    #set(name, value) {
      this.#parts = ask("url.set", this.#parts.href, name, String(value)) ?? this.#parts;
    }

    get href() { return this.#parts.href; }
    set href(value) {
      this.#parts = new URL(value).#parts;
      if (this.#params !== undefined) replace(this.#params, this.search.slice(1));
    }

    get origin() {
      const { protocol, host, pathname } = this.#parts;
      if (["http:", "https:", "ftp:", "ws:", "wss:"].includes(protocol)) return `${protocol}//${host}`;
      const inner = protocol === "blob:" ? URL.parse(pathname) : null;
      return inner?.protocol === "http:" || inner?.protocol === "https:" ? inner.origin : "null";
    }

    get search() { return this.#parts.search; }
    set search(value) {
      this.#set("search", value);
      if (this.#params !== undefined) replace(this.#params, this.search.slice(1));
    }

    get searchParams() {
      if (this.#params === undefined) {
        this.#params = new URLSearchParams(this.search);
        watch(this.#params, () => this.#set("search", this.#params.toString()));
      }
      return this.#params;
    }

    toString() { return this.href; }
    toJSON() { return this.href; }
    get [Symbol.toStringTag]() { return "URL"; }

    static {
      for (const name of ["protocol", "username", "password", "host", "hostname", "port", "pathname", "hash"]) {
        Object.defineProperty(URL.prototype, name, {
          configurable: true,
          enumerable: true,
          get() { return this.#parts[name]; },
          set(value) { this.#set(name, value); },
        });
      }
    }
  }

  return { URL, URLSearchParams };
}
