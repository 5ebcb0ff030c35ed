// The host services: key-value, object store, messaging and HTTP, as the node
// offers them. Each method there is twice: get waits for the answer, and
// getAsync returns a promise of it, so that several calls can be under way.
"use strict";

(host, { bytesOf, isBuffer, parse, stringify }) => {
  const waiting = new Map(); // what to do with the answer of a call, by its number
  const numbers = { invalid: 400, denied: 403, not_found: 404, too_large: 413, overloaded: 503, unavailable: 503, unsupported: 501, timeout: 504 };

  const failure = (code, message) => Object.assign(new Error(message), { code, status: numbers[code] ?? 500 });

  // ---- what travels ----

  const isBytes = (value) => ArrayBuffer.isView(value) || isBuffer(value);

  // payload returns any value as bytes: what is no text and no bytes is JSON.
  const payload = (value) => {
    if (isBytes(value)) return bytesOf(value);
    if (typeof value === "string") return host.encode(value);
    const text = stringify(value);
    if (text === undefined) throw failure("invalid", `a ${typeof value} cannot be sent: give a string, bytes, or what has a JSON form`);
    return host.encode(text);
  };

  // question returns the bytes that host.ask takes: see Helper in package js.
  const question = (service, method, args, bytes, headers) => {
    const texts = [service, method];
    for (const name in args) texts.push(name, args[name]);
    if (headers !== undefined) {
      texts.push("");
      for (const name in headers) for (const value of headers[name]) texts.push(name, value);
    }
    for (const text of texts) {
      if (text.includes("\0")) throw failure("invalid", `${stringify(text)} has a NUL`);
    }
    const about = host.encode(texts.join("\0"));
    const all = new Uint8Array(4 + about.length + (bytes?.length ?? 0));
    new DataView(all.buffer).setUint32(0, about.length, true);
    all.set(about, 4);
    if (bytes !== undefined) all.set(bytes, 4 + about.length);
    return all;
  };

  // read takes an answer apart.
  const read = (all) => {
    const end = 4 + new DataView(all.buffer, all.byteOffset).getUint32(0, true);
    const answer = end === 4 ? {} : parse(host.decode(all.subarray(4, end), false));
    answer.payload = all.slice(end);
    return answer;
  };

  const succeeded = (answer) => {
    if (answer.code !== undefined) throw failure(answer.code, answer.message);
    return answer;
  };

  // ---- calls ----

  // ask makes a call and returns what use makes of its answer.
  const ask = (request, use) => {
    const answer = host.ask("host.call", question(...request));
    if (answer === undefined) throw failure("timeout", "the call has no time left");
    return use(succeeded(read(answer)));
  };

  // begin makes a call and returns a promise of what use makes of its answer.
  // What it calls begun with gives the call up.
  const begin = (request, use, begun) => new Promise((resolve, reject) => {
    const number = host.ask("host.begin", question(...request));
    if (number === undefined) throw failure("overloaded", "too many calls are under way: await some of them first");
    const key = Number(host.decode(number, false));
    waiting.set(key, (answer) => {
      try {
        resolve(use(succeeded(answer)));
      } catch (error) {
        reject(error);
      }
    });
    begun?.(() => waiting.delete(key));
  });

  // deliver passes on the answer of a call that was begun, if one has come.
  const deliver = () => {
    const came = host.ask("host.ended", new Uint8Array(0));
    if (came === undefined) return false;
    const answer = read(came);
    const take = waiting.get(answer.ticket);
    waiting.delete(answer.ticket);
    take?.(answer);
    return true;
  };

  // both adds a method to a service, and its form with promises. prepare turns
  // its arguments into a call.
  const both = (service, name, prepare, use) => {
    service[name] = (...given) => ask(prepare(...given), use);
    service[`${name}Async`] = async (...given) => begin(prepare(...given), use);
  };

  const required = (given, count, message) => {
    if (given.length < count || given[0] === undefined || given[0] === null) throw failure("invalid", message);
  };

  const nothing = () => undefined;
  const bytes = ({ payload }) => payload;
  const json = ({ payload }) => parse(host.decode(payload, false));

  // ---- the services ----

  const kv = {};
  both(kv, "get", (...given) => {
    required(given, 1, "key is required");
    return ["kv", "get", { key: String(given[0]) }];
  }, bytes);
  both(kv, "set", (...given) => {
    required(given, 2, "key and value are required");
    return ["kv", "set", { key: String(given[0]) }, payload(given[1])];
  }, nothing);
  both(kv, "delete", (...given) => {
    required(given, 1, "key is required");
    return ["kv", "delete", { key: String(given[0]) }];
  }, nothing);
  both(kv, "keys", () => ["kv", "keys", {}], json);

  const objectStore = {};
  both(objectStore, "get", (...given) => {
    required(given, 1, "name is required");
    return ["objectstore", "get", { name: String(given[0]) }];
  }, bytes);
  both(objectStore, "put", (...given) => {
    required(given, 2, "name and value are required");
    return ["objectstore", "put", { name: String(given[0]) }, payload(given[1])];
  }, json);
  both(objectStore, "delete", (...given) => {
    required(given, 1, "name is required");
    return ["objectstore", "delete", { name: String(given[0]) }];
  }, nothing);
  both(objectStore, "list", () => ["objectstore", "list", {}], json);

  // lists returns headers with an array of texts each.
  const lists = (headers) => {
    if (headers === undefined || headers === null) return undefined;
    const all = { __proto__: null };
    for (const [name, value] of typeof headers[Symbol.iterator] === "function" ? headers : Object.entries(headers)) {
      (all[name] ??= []).push(...(Array.isArray(value) ? value : [value]).map(String));
    }
    return all;
  };

  const number = (args, name, value) => {
    if (value !== undefined) args[name] = String(Math.ceil(Number(value)));
  };

  const message = (method) => (...given) => {
    required(given, 2, "subject and payload are required");
    const [subject, value] = given;
    const options = given[2] ?? {};
    const args = { subject: String(subject) };
    number(args, "timeout_ms", options.timeout);
    number(args, "count", options.count);
    number(args, "quiet_ms", options.quiet);
    return ["messaging", method, args, payload(value), lists(options.headers)];
  };

  // replies takes the payload of requestMany apart.
  const replies = ({ payload }) => {
    const view = new DataView(payload.buffer);
    const all = [];
    for (let at = 0; at < payload.length;) {
      const from = at + 4;
      at = from + view.getUint32(at);
      all.push(payload.slice(from, at));
    }
    return all;
  };

  const messaging = {};
  both(messaging, "publish", message("publish"), nothing);
  both(messaging, "request", message("request"), bytes);
  both(messaging, "requestMany", message("requestMany"), replies);

  // ---- HTTP ----

  const contentType = (headers, value) => {
    const type = typeof value === "string" ? "text/plain;charset=UTF-8" : isBytes(value) ? undefined : "application/json";
    if (type === undefined || Object.keys(headers ?? {}).some((name) => name.toLowerCase() === "content-type")) return headers;
    return { ...headers, "Content-Type": [type] };
  };

  // request returns the call of an HTTP request.
  const request = (method, url, body, options) => {
    const args = { url: String(url) };
    if (options.query !== undefined) {
      const added = new URL(args.url);
      for (const [name, value] of new URLSearchParams(options.query)) added.searchParams.append(name, value);
      args.url = added.href;
    }
    number(args, "timeout_ms", options.timeout);
    if (options.redirect !== undefined) args.redirect = String(options.redirect);
    const headers = lists(options.headers);
    if (body === undefined || body === null) return ["http", method, args, undefined, headers];
    return ["http", method, args, payload(body), contentType(headers, body)];
  };

  // HTTPResponse is an answer that has come whole.
  class HTTPResponse {
    #payload;

    constructor({ args, headers, payload }) {
      this.status = Number(args.status);
      this.headers = {};
      for (const name of Object.keys(headers ?? {})) this.headers[name] = headers[name].join(", ");
      this.#payload = payload;
      if (payload.length === 0) return;
      Object.defineProperty(this, "response", { enumerable: true, configurable: true, get: () => this.text() });
    }

    bytes() { return this.#payload; }
    text() { return host.decode(this.#payload, false); }
    json() { return parse(this.text()); }
  }

  const http = {};
  const answered = (answer) => new HTTPResponse(answer);
  const isOptions = (value) => typeof value === "object" && value !== null && !isBytes(value);
  for (const [name, method] of [["get", "get"], ["head", "head"], ["delete", "delete"], ["del", "delete"]]) {
    both(http, name, (...given) => {
      required(given, 1, "url is required");
      const [url, second, third] = given;
      return isOptions(second) ? request(method, url, second.body, second) : request(method, url, second, third ?? {});
    }, answered);
  }
  for (const method of ["post", "put", "patch"]) {
    both(http, method, (...given) => {
      required(given, 1, "url is required");
      return request(method, given[0], given[1], given[2] ?? {});
    }, answered);
  }

  return {
    hostServices: { kv, objectStore, messaging, http },
    begin, request, lists, deliver,
    waits: () => waiting.size > 0,
    drop: () => waiting.clear(),
  };
}
