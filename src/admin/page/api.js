// Requests to the admin listener. The token stays in this tab (sessionStorage) and is sent in a header only.

const TOKEN = "postern-admin-token";

export class TokenNeeded extends Error {}

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** Fetches JSON from the admin listener. */
export async function get(path, headers = {}) {
  const secret = token.get();
  const authorization = secret ? { authorization: `Bearer ${secret}` } : {};
  const response = await fetch(path, { headers: { ...headers, ...authorization }, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(20000) });
  if (response.status === 401) throw new TokenNeeded();
  if (!response.ok) throw new Error(`the admin listener answered ${response.status}`);
  return response.json();
}
