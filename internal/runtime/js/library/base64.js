// atob and btoa: texts whose characters stand for bytes.
"use strict";

(host, { part }) => {
  const convert = (what, text, why) => {
    const answer = host.ask(what, host.encode(String(text)));
    if (answer === undefined) throw new (part("errors").DOMException)(why, "InvalidCharacterError");
    return host.decode(answer, false);
  };

  return {
    atob: (text) => convert("atob", text, "the text is not correctly encoded in base64"),
    btoa: (text) => convert("btoa", text, "the text has characters beyond U+00FF, which are no bytes"),
  };
}
