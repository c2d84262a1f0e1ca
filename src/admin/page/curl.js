// The curl command of an explored request. The credential is a variable of the shell, so that the command can be shared.

import { get } from "./api.js";

let listener = null;

/** Reads the address of the gateway's first listener, once. */
export async function findGateway() {
  if (listener) return;
  const config = await get("/config");
  listener = config.listeners?.[0] ?? {};
}

/** Quotes a word for a POSIX shell. */
export const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

export function curlOf({ target, token, account }) {
  const secret = token ? '-H "Authorization: Bearer $TOKEN"' : '-H "x-api-key: $POSTERN_KEY"';
  const forAccount = account && `-H ${quoted(`linked_account_id: ${account}`)}`;
  return ["curl -i", ...connection(target), secret, forAccount].filter(Boolean).join(" ");
}

/** The options that lead to the listener, and the URL. */
function connection(target) {
  const address = String(listener?.address ?? "");
  if (address.startsWith("unix:")) return [`--unix-socket ${quoted(address.slice(5))}`, quoted(`http://localhost${target}`)];
  const scheme = listener?.tls ? "https" : "http";
  // An address that stands for all of the machine's is reached by the name that leads to this page.
  const host = address.replace(/^(0\.0\.0\.0|\[::\])(?=:)/, location.hostname) || location.hostname;
  return [quoted(`${scheme}://${host}${target}`)];
}
