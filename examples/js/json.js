// Answers a JSON object with another one. A module exports its function. Bytes
// and strings go out as they are, every other value as JSON; what is thrown
// becomes the caller's error.
export default function (subject, payload, ctx) {
  const order = ctx.json(); // throws when the payload is not JSON
  if (!Array.isArray(order.items)) {
    throw new TypeError("an order needs items");
  }
  const total = order.items.reduce((sum, item) => sum + item.price * item.count, 0);
  return { subject, customer: order.customer ?? "unknown", items: order.items.length, total };
}
