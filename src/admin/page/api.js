// Requests to the admin listener. The token stays in this tab (sessionStorage) and is sent in a header only.

const TOKEN = "postern-admin-token";

export class TokenNeeded extends Error {
  name = "TokenNeeded";
}

/** The admin listener was not reached, or its answer did not arrive. */
export class NoAnswer extends Error {
  name = "NoAnswer";
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** A header value as `fetch` takes it: one letter for each byte of the text in UTF-8. */
export const fieldValue = (words) => Array.from(new TextEncoder().encode(words), (byte) => String.fromCharCode(byte)).join("");

async function send(path, options) {
  const secret = token.get();
  const authorization = secret ? { authorization: fieldValue(`Bearer ${secret}`) } : {};
  // Values that no header can have are an error of their own.
  const sent = new Headers({ ...options.headers, ...authorization });
  let response, body;
  try {
    response = await fetch(path, { ...options, headers: sent, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(20000) });
    body = await response.text();
  } catch (error) {
    throw new NoAnswer(error.message);
  }
  if (response.status === 401) throw new TokenNeeded();
  if (!response.ok) throw new Error(messageOf(body) ?? `the admin listener answered ${response.status}`);
  return JSON.parse(body);
}

function messageOf(body) {
  try {
    return JSON.parse(body).message;
  } catch {
    return null;
  }
}

/** Fetches JSON from the admin listener. */
export const get = (path, headers = {}) => send(path, { headers });

/** Sends JSON to the admin listener. */
export const post = (path, value) => send(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value) });
