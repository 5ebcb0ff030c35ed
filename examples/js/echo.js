// Logs the subject of each message and answers with its payload, byte for
// byte. The value of a script is its function.
(subject, payload) => {
  console.log(subject);
  return payload;
};
