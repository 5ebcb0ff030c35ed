// What a JavaScript function on Nex finds beside the language, for editors and
// type checkers. Put it beside your code; a function is checked as
//
//     /** @satisfies {nex.Handler} */ ((subject, payload, ctx) => payload)
//
// fetch, Headers, URL, timers, crypto and the like are those
// of the standard library "lib.dom.d.ts", as far as docs/host-services.md and the
// README list them.

declare namespace nex {
  /** What can be sent: text as UTF-8, bytes as they are, everything else as JSON. */
  type Sendable = string | ArrayBuffer | ArrayBufferView | object | number | boolean | null;

  /** What a function may return, or a promise of that. */
  type Reply = Sendable | undefined | void | Answer;

  type Handler = (subject: string, payload: Uint8Array, ctx: Context) => Reply | Promise<Reply>;

  interface Context {
    readonly subject: string;
    readonly payload: Uint8Array;
    /** Where the answer goes, "" when nobody waits for one. */
    readonly reply: string;
    readonly headers: Readonly<Record<string, string[]>>;
    /** When the call is stopped, in milliseconds since 1970. */
    readonly deadline: number;
    readonly env: Readonly<Record<string, string>>;
    readonly namespace: string;
    readonly workload: string;
    readonly id: string;
    /** The payload, read as UTF-8. */
    text(): string;
    /** The payload, read as JSON. */
    json(): any;
    /** A reply with headers, to be returned. */
    respond(value: Sendable | undefined, options?: { headers?: HeadersGiven }): Answer;
  }

  /** What ctx.respond returns. */
  interface Answer { readonly __answer: never }

  type HeadersGiven = Record<string, string | number | boolean | (string | number | boolean)[]> | Iterable<[string, string]>;

  /** What host services throw. */
  interface HostError extends Error {
    readonly code: "invalid" | "denied" | "not_found" | "timeout" | "too_large" | "overloaded" | "unavailable" | "unsupported" | "internal";
    /** The nearest HTTP status. */
    readonly status: number;
  }

  interface HostServices {
    readonly kv: KeyValue;
    readonly objectStore: ObjectStore;
    readonly messaging: Messaging;
    readonly http: HTTP;
  }

  interface KeyValue {
    get(key: string): Uint8Array;
    getAsync(key: string): Promise<Uint8Array>;
    set(key: string, value: Sendable): void;
    setAsync(key: string, value: Sendable): Promise<void>;
    delete(key: string): void;
    deleteAsync(key: string): Promise<void>;
    keys(): string[];
    keysAsync(): Promise<string[]>;
  }

  interface ObjectInfo {
    name: string;
    size: number;
    mtime: string;
    digest: string;
    bucket: string;
    nuid: string;
    chunks: number;
    options?: { max_chunk_size?: number };
  }

  interface ObjectStore {
    get(name: string): Uint8Array;
    getAsync(name: string): Promise<Uint8Array>;
    put(name: string, value: Sendable): ObjectInfo;
    putAsync(name: string, value: Sendable): Promise<ObjectInfo>;
    delete(name: string): void;
    deleteAsync(name: string): Promise<void>;
    list(): ObjectInfo[];
    listAsync(): Promise<ObjectInfo[]>;
  }

  interface MessageOptions {
    headers?: HeadersGiven;
  }

  interface RequestOptions extends MessageOptions {
    /** Milliseconds to wait; the node says how long if not given. */
    timeout?: number;
  }

  interface RequestManyOptions extends RequestOptions {
    /** How many replies are enough. */
    count?: number;
    /** Milliseconds without another reply after which there are enough. */
    quiet?: number;
  }

  interface Messaging {
    publish(subject: string, payload: Sendable, options?: MessageOptions): void;
    publishAsync(subject: string, payload: Sendable, options?: MessageOptions): Promise<void>;
    request(subject: string, payload: Sendable, options?: RequestOptions): Uint8Array;
    requestAsync(subject: string, payload: Sendable, options?: RequestOptions): Promise<Uint8Array>;
    requestMany(subject: string, payload: Sendable, options?: RequestManyOptions): Uint8Array[];
    requestManyAsync(subject: string, payload: Sendable, options?: RequestManyOptions): Promise<Uint8Array[]>;
  }

  interface HTTPOptions {
    headers?: HeadersGiven;
    /** Added to the query of the URL. */
    query?: Record<string, string> | [string, string][] | string;
    /** Milliseconds; the node says how long if not given. */
    timeout?: number;
    redirect?: "follow" | "manual" | "error";
  }

  interface HTTPBodyOptions extends HTTPOptions {
    body?: Sendable;
  }

  interface HTTPResponse {
    readonly status: number;
    /** Values of one name are joined by ", ". */
    readonly headers: Record<string, string>;
    /** The body as text; not there when it is empty. */
    readonly response?: string;
    bytes(): Uint8Array;
    text(): string;
    json(): any;
  }

  type Bytes = string | ArrayBuffer | ArrayBufferView;

  interface HTTP {
    get(url: string | URL, options?: HTTPBodyOptions | Bytes): HTTPResponse;
    getAsync(url: string | URL, options?: HTTPBodyOptions | Bytes): Promise<HTTPResponse>;
    head(url: string | URL, options?: HTTPBodyOptions | Bytes): HTTPResponse;
    headAsync(url: string | URL, options?: HTTPBodyOptions | Bytes): Promise<HTTPResponse>;
    post(url: string | URL, body?: Sendable, options?: HTTPOptions): HTTPResponse;
    postAsync(url: string | URL, body?: Sendable, options?: HTTPOptions): Promise<HTTPResponse>;
    put(url: string | URL, body?: Sendable, options?: HTTPOptions): HTTPResponse;
    putAsync(url: string | URL, body?: Sendable, options?: HTTPOptions): Promise<HTTPResponse>;
    patch(url: string | URL, body?: Sendable, options?: HTTPOptions): HTTPResponse;
    patchAsync(url: string | URL, body?: Sendable, options?: HTTPOptions): Promise<HTTPResponse>;
    /** The same as delete. */
    del(url: string | URL, options?: HTTPBodyOptions | Bytes): HTTPResponse;
    delAsync(url: string | URL, options?: HTTPBodyOptions | Bytes): Promise<HTTPResponse>;
    delete(url: string | URL, options?: HTTPBodyOptions | Bytes): HTTPResponse;
    deleteAsync(url: string | URL, options?: HTTPBodyOptions | Bytes): Promise<HTTPResponse>;
  }
}

declare const hostServices: nex.HostServices;
