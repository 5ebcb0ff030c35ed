// Answers with headers, after work that takes time: a digest of the payload,
// and a wait that the caller may ask for with a header, in milliseconds.
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async (subject, payload, ctx) => {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", payload));
  await wait(Number(ctx.headers.Wait?.[0] ?? 0));
  const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return ctx.respond({ bytes: payload.length }, { headers: { "Receipt-Id": crypto.randomUUID(), Sha256: sha256 } });
};
