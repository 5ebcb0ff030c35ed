// fetch, on the HTTP host service. Bodies are whole: there are no streams.
"use strict";

(host, { part, bytesOf, isBuffer, parse, stringify }) => {
  const { begin, request } = part("services");
  const { Headers } = part("headers");
  const methods = ["get", "post", "put", "patch", "delete", "head"];

  class Response {
    #body;
    #used = false;

    constructor(body = null, { status = 200, statusText = "", headers } = {}) {
      this.status = status;
      this.statusText = statusText;
      this.headers = new Headers(headers);
      this.url = "";
      this.redirected = false;
      this.type = "default";
      if (typeof body === "string" && !this.headers.has("content-type")) this.headers.set("content-type", "text/plain;charset=UTF-8");
      this.#body = body === null || body === undefined ? new Uint8Array(0)
        : ArrayBuffer.isView(body) || isBuffer(body) ? bytesOf(body).slice() : host.encode(String(body));
    }

    static json(value, init) {
      const response = new Response(stringify(value), init);
      if (!new Headers(init?.headers).has("content-type")) response.headers.set("content-type", "application/json");
      return response;
    }

    get ok() { return this.status >= 200 && this.status < 300; }
    get bodyUsed() { return this.#used; }

    #take() {
      if (this.#used) throw new TypeError("the body was read already");
      this.#used = true;
      return this.#body;
    }

    async bytes() { return this.#take(); }
    async arrayBuffer() { return this.#take().buffer; }
    async text() { return host.decode(this.#take(), false).replace(/^\ufeff/, ""); }
    async json() { return parse(await this.text()); }

    clone() {
      if (this.#used) throw new TypeError("the body was read already");
      const copy = new Response(this.#body, { status: this.status, statusText: this.statusText, headers: this.headers });
      return Object.assign(copy, { url: this.url, redirected: this.redirected, type: this.type });
    }
  }

  // pairs returns headers as they are sent: names with an array each.
  const pairs = (headers) => {
    const all = { __proto__: null };
    for (const [name, value] of headers) (all[name] ??= []).push(value);
    return all;
  };

  const answered = (asked) => ({ args, headers, payload }) => {
    const response = new Response(payload, { status: Number(args.status), statusText: args.status_text ?? "" });
    for (const name of Object.keys(headers ?? {})) {
      for (const value of headers[name]) response.headers.append(name, value);
    }
    const url = args.url || asked;
    return Object.assign(response, { url, redirected: url !== asked, type: "basic" });
  };

  const fetch = async (resource, init = {}) => {
    const url = new URL(String(resource?.url ?? resource)).href;
    const { method = "GET", body, redirect, signal } = init;
    const verb = String(method).toLowerCase();
    if (!methods.includes(verb)) throw new TypeError(`fetch has no method ${method}, only ${methods.join(", ").toUpperCase()}`);
    if (body !== undefined && body !== null && (verb === "get" || verb === "head")) throw new TypeError(`a ${method} request has no body`);
    signal?.throwIfAborted();
    const form = body instanceof URLSearchParams;
    const headers = new Headers(init.headers);
    if (form && !headers.has("content-type")) headers.set("content-type", "application/x-www-form-urlencoded;charset=UTF-8");
    const sent = body === undefined || body === null || ArrayBuffer.isView(body) || isBuffer(body) ? body : String(body);
    const asked = request(verb, url, sent, { headers: pairs(headers), redirect });
    let giveUp;
    const aborted = signal && new Promise((_, reject) => {
      signal.addEventListener("abort", () => {
        giveUp?.();
        reject(signal.reason);
      });
    });
    const answer = begin(asked, answered(url), (stop) => { giveUp = stop; }).catch((error) => {
      const { code, status } = error;
      throw Object.assign(new TypeError(`fetch failed: ${error.message}`), { code, status });
    });
    return aborted ? Promise.race([answer, aborted]) : answer;
  };

  return { fetch, Response };
}
