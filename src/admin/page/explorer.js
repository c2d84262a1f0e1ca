// The explorer: sends a query as a caller would, and explains the response. Credentials stay in the fields of the form.

import { TokenNeeded, get } from "./api.js";
import { $, ago, copyable, h, table, text } from "./dom.js";

const FILTERS = ["page", "limit", "status", "execution_source", "execution_type", "start_date", "end_date"];
const STATES = { COMPLETED: "good", ERRORED: "bad", TIMED_OUT: "bad", RUNNING: "plain", STOPPING: "warn", STOPPED: "warn" };

export function start(needToken) {
  const form = $("question");
  form.addEventListener("change", () => {
    const token = form.elements.kind.value === "token";
    text($("credential-name"), token ? "Bearer token" : "Client key");
    $("credential").placeholder = token ? "eyJ…" : "pst_…";
  });
  const run = async () => {
    const button = $("run");
    button.disabled = true;
    text(button, "Sending…");
    const begun = performance.now();
    try {
      const explored = await get(`/explore?${query(form)}`, credential(form));
      show(explored, performance.now() - begun, (page) => {
        $("q-page").value = page;
        run();
      });
    } catch (error) {
      if (error instanceof TokenNeeded) needToken();
      else $("answer").replaceChildren(h("p", { class: "notice bad", role: "alert" }, h("b", {}, "The gateway does not answer."), `It may be restarting; try again in a moment. (${error.message})`));
    } finally {
      button.disabled = false;
      text(button, "Send");
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
}

function query(form) {
  const filters = FILTERS.map((name) => [name, form.elements[name].value.trim()]).filter(([, value]) => value !== "");
  return new URLSearchParams(filters);
}

function credential(form) {
  const [secret, account] = [$("credential").value.trim(), $("account").value.trim()];
  const headers = form.elements.kind.value === "token" ? { "x-explore-authorization": `Bearer ${secret}` } : { "x-api-key": secret };
  return account ? { ...headers, linked_account_id: account } : headers;
}

function show(explored, milliseconds, turnTo) {
  const headers = Object.fromEntries(explored.headers);
  const { status, body, question } = explored;
  const source = sourceOf(headers["cache-status"] ?? "");
  const took = `${Math.round(milliseconds)} ms`;
  text($("said"), status === 200 ? `${body.docs.length} of ${body.totalDocs} executions, ${source}` : `${status}: ${body?.message ?? ""}`);
  const pill = h("span", { class: `pill ${status < 300 ? "good" : status >= 500 ? "bad" : "warn"}` }, String(status));
  const outcome = (...words) => h("p", { class: "outcome" }, pill, ...words);
  const first =
    status === 200
      ? h("article", { class: "card" }, outcome(h("b", {}, source), h("span", { class: "muted" }, took)), page(body, turnTo))
      : h("article", { class: "card" }, outcome(h("b", {}, body?.error_code ?? "No executions"), h("span", { class: "muted" }, took)), h("p", {}, body?.message ?? "The body of the response is not JSON."));
  $("answer").replaceChildren(first, ...(question ? [interpretation(question)] : []), responseHeaders(explored.headers));
}

const COLUMNS = [["name", "Name"], ["status", "Status"], ["source", "Source"], ["created", "Created"], ["id", "Id"]];

/** The source of the response, in words. */
function sourceOf(cacheStatus) {
  if (/; hit; ttl=-/.test(cacheStatus)) return "From the cache, stale, while it is fetched again";
  if (/; hit/.test(cacheStatus)) return "From the cache";
  return /collapsed/.test(cacheStatus) ? "Fetched from Refold, in one request with other callers" : "Fetched from Refold";
}

function page(body, turnTo) {
  if (!body.docs.length) return h("p", { class: "empty" }, body.totalDocs ? "This page is empty." : "No execution matches the query.");
  const now = Date.now();
  const rows = body.docs.map((given) => given ?? {}).map((one) => [
    one.name ?? one.associated_workflow?.name ?? "–",
    { fixed: h("span", { class: `pill ${STATES[one.status] ?? ""}` }, one.status ?? "–") },
    one.execution_source ?? "–",
    { fixed: one.createdAt ? h("time", { datetime: one.createdAt, title: one.createdAt }, ago(Math.max(0, (now - Date.parse(one.createdAt)) / 1000))) : "–" },
    { fixed: one._id ? copyable(String(one._id), `…${String(one._id).slice(-8)}`) : "–" },
  ]);
  const turn = (words, to) => h("button", { type: "button", disabled: to == null, on: { click: () => turnTo(to) } }, words);
  return h(
    "div",
    {},
    table("executions", `Executions ${body.pagingCounter} to ${body.pagingCounter + body.docs.length - 1} of ${body.totalDocs}`, COLUMNS, rows),
    h("div", { class: "pages" }, h("span", { class: "muted" }, `Page ${body.page} of ${body.totalPages}`), h("div", {}, turn("Previous", body.prevPage), turn("Next", body.nextPage))),
  );
}

function interpretation(question) {
  const part = (words) => h("code", {}, words);
  return h(
    "article",
    { class: "card" },
    h("h2", {}, "The query as the gateway reads it"),
    h(
      "dl",
      { class: "keys" },
      h("dt", {}, "Canonical query"),
      h("dd", {}, h("code", { id: "canonical" }, question.canonical)),
      h("dt", {}, "Request to Refold"),
      h("dd", {}, h("code", {}, question.upstream)),
      h("dt", {}, "Cache key"),
      h("dd", { class: "parts" }, part(`tenant ${question.tenant}`), part(question.linked_account ? `linked account ${question.linked_account}` : "this session token"), part("canonical query")),
      h("dt", {}, "Caller"),
      h("dd", {}, question.caller),
    ),
  );
}

const parameter = (value, name) => value.match(new RegExp(`;${name}=(-?\\d+)`))?.[1];

/** The meaning of each response header, in words. */
const WORDS = {
  "cache-status": (value) => {
    const left = value.match(/ttl=(-?\d+)/)?.[1];
    if (left != null && left < 0) return `From the cache, stale for ${-left} s; it is being fetched again, or Refold can't be reached.`;
    if (left != null) return `From the cache, fresh for ${left} s more.`;
    const why = value.includes("stale") ? "The cached answer was stale" : value.includes("request") ? "The request demanded a new answer" : "The answer was not in the cache";
    const kept = value.includes("stored") ? "; the new answer is stored" : "; the new answer is not stored";
    return `${why}, so it was fetched from Refold${kept}${value.includes("collapsed") ? ", and shared with other callers of the same query" : ""}.`;
  },
  age: (value) => (value === "0" ? "Refold gave this answer within the last second." : `Refold gave this answer ${value} s ago.`),
  etag: () => "Identifies this content. With this value in If-None-Match, an unchanged answer comes without a body, as 304.",
  "cache-control": (value) => {
    const seconds = value.match(/max-age=(\d+)/)?.[1];
    return seconds ? `A browser may reuse the answer for ${seconds} s; shared caches must not store it.` : "No cache may store the answer.";
  },
  ratelimit: (value) => `${parameter(value, "r")} more requests may follow at once; the budget is full again in ${parameter(value, "t")} s.`,
  "ratelimit-policy": (value) => `The linked account's budget: ${parameter(value, "q")} requests in ${parameter(value, "w")} s.`,
  "retry-after": (value) => `Try again in ${value} s.`,
  "x-request-id": () => "Identifies this request in the log and in the list of recent errors.",
  "www-authenticate": () => "The gateway does not know the credential.",
  vary: () => "The answer depends on these request headers, so a cache must not share it between callers.",
  "content-type": () => "The media type of the body.",
};

function responseHeaders(headers) {
  const order = Object.keys(WORDS);
  const sorted = headers.filter(([name]) => name in WORDS).sort(([one], [other]) => order.indexOf(one) - order.indexOf(other));
  const rows = sorted.map(([name, value]) => [h("code", {}, name), h("code", {}, value), WORDS[name](value)]);
  return h("article", { class: "card" }, h("h2", {}, "Response headers"), table("headers", "Headers of the gateway's response and their meaning", [["name", "Header"], ["value", "Value"], ["meaning", "Meaning"]], rows));
}
