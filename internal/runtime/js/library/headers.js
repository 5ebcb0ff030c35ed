// Headers, as fetch has them: names in lower case, in their order, their
// values joined by commas.
"use strict";

() => {
  const nameOf = (name) => {
    name = String(name);
    if (!/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(name)) throw new TypeError(`${JSON.stringify(name)} is no name of a header`);
    return name.toLowerCase();
  };

  const valueOf = (name, value) => {
    value = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
    if (/[\0\r\n]|[^\0-\xff]/.test(value)) throw new TypeError(`the header ${name} has a value that is none`);
    return value;
  };

  class Headers {
    #values = new Map(); // arrays of values, by name

    constructor(init) {
      if (init === undefined) return;
      if (typeof init !== "object" || init === null) throw new TypeError("Headers are made from an object or pairs");
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const pair of pairs) {
        const [name, value, ...more] = pair;
        if (more.length > 0 || value === undefined) throw new TypeError("each pair of Headers must have a name and a value");
        this.append(name, value);
      }
    }

    append(name, value) {
      name = nameOf(name);
      value = valueOf(name, value);
      const values = this.#values.get(name);
      if (values === undefined) this.#values.set(name, [value]);
      else values.push(value);
    }

    set(name, value) {
      name = nameOf(name);
      this.#values.set(name, [valueOf(name, value)]);
    }

    delete(name) { this.#values.delete(nameOf(name)); }
    has(name) { return this.#values.has(nameOf(name)); }
    get(name) { return this.#values.get(nameOf(name))?.join(", ") ?? null; }
    getSetCookie() { return [...(this.#values.get("set-cookie") ?? [])]; }

    forEach(callback, self) {
      for (const [name, value] of this) callback.call(self, value, name, this);
    }

    *entries() {
      for (const name of [...this.#values.keys()].sort()) {
        if (name !== "set-cookie") yield [name, this.get(name)];
        else for (const value of this.getSetCookie()) yield [name, value];
      }
    }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    [Symbol.iterator]() { return this.entries(); }
    get [Symbol.toStringTag]() { return "Headers"; }
  }

  return { Headers };
}
