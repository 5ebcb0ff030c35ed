// Timers, and the clock that they go by. They run while a reply is pending:
// the engine calls tick again and again until it is not.
//
// A timer may outlive the call that set it, as long as other calls are in the
// isolate, but no call that was there at that time: so what calls forget is gone
// some time, also where there is always another one.
"use strict";

(host, { report, left, slot, LONGEST: PAUSE }) => {
  const GRACE = 1000; // milliseconds that calls are late before their timers go
  const LONGEST = 2 ** 31 - 1; // milliseconds
  const timers = new Map(); // by number
  let heap = []; // of timers, the next one first; some may have been cleared
  let last = 0; // the number of the newest timer
  let order = 0; // tells timers of one time apart

  const before = (a, b) => a.due < b.due || (a.due === b.due && a.order < b.order);

  const push = (timer) => {
    let at = heap.push(timer) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (before(heap[above], timer)) break;
      heap[at] = heap[above];
      at = above;
    }
    heap[at] = timer;
  };

  const pop = () => {
    const first = heap[0];
    const moved = heap.pop();
    if (heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && before(heap[below + 1], heap[below])) below++;
      if (before(moved, heap[below])) break;
      heap[at] = heap[below];
      at = below;
    }
    heap[at] = moved;
    return first;
  };

  const schedule = (timer) => {
    timer.due = Math.min(host.now() + timer.delay, timer.end);
    timer.order = ++order;
    push(timer);
  };

  const start = (repeats) => (callback, delay, ...args) => {
    if (typeof callback !== "function") throw new TypeError("the callback of a timer must be a function");
    delay = Math.min(Math.max(Number(delay) || 0, 0), LONGEST);
    const timer = { number: ++last, callback, args, delay, repeats, slot: slot(), end: host.now() + left() + GRACE, due: 0, order: 0 };
    timers.set(timer.number, timer);
    schedule(timer);
    return timer.number;
  };

  const clear = (number) => {
    if (!timers.delete(Number(number)) || heap.length < 100 || heap.length < 2 * timers.size) return;
    heap = heap.filter((timer) => timers.has(timer.number)).sort((a, b) => before(a, b) ? -1 : 1);
  };

  // next returns how many milliseconds there are until the next timer, times 64,
  // and its slot; or -1 when there is none.
  const next = () => {
    while (heap.length > 0 && !timers.has(heap[0].number)) pop();
    if (heap.length === 0) return -1;
    const wait = heap[0].due - host.now();
    return (wait > 0 ? Math.min(Math.ceil(wait), PAUSE) * 64 : 0) + heap[0].slot | 0;
  };

  const run = (callback, args) => {
    try {
      callback(...args);
    } catch (error) {
      report(error);
    }
  };

  return {
    setTimeout: start(false),
    setInterval: start(true),
    clearTimeout: clear,
    clearInterval: clear,

    queueMicrotask(callback) {
      if (typeof callback !== "function") throw new TypeError("the callback of a microtask must be a function");
      Promise.resolve().then(() => run(callback, []));
    },

    performance: {
      timeOrigin: Date.now() - host.now(),
      now: () => host.now(),
      toJSON() { return { timeOrigin: this.timeOrigin }; },
    },

    // tick runs the timer that is due, if it belongs to that slot or slot is -1,
    // and returns -2; else it is next.
    tick(slot) {
      const wait = next();
      if (wait < 0 || wait >= 64 || (slot >= 0 && wait !== slot)) return wait;
      const timer = pop();
      if (timer.due >= timer.end) {
        timers.delete(timer.number);
        return -2;
      }
      if (timer.repeats) schedule(timer);
      else timers.delete(timer.number);
      run(timer.callback, timer.args);
      return -2;
    },

    next,

    // drop forgets the timers of earlier calls.
    drop() {
      if (timers.size === 0) return;
      timers.clear();
      heap = [];
    },
  };
}
