// The explorer: sends a query as a caller would, and explains the response. Credentials stay in the fields of the form.

import { NoAnswer, TokenNeeded, fieldValue, get } from "./api.js";
import { curlOf, findGateway } from "./curl.js";
import { $, ago, copyable, cut, h, table, text } from "./dom.js";

const COLLECTION = "/api/v2/public/execution";
const FILTERS = ["status", "execution_source", "execution_type", "start_date", "end_date", "page", "limit"];
const STATES = { COMPLETED: "good", ERRORED: "bad", TIMED_OUT: "bad", RUNNING: "plain", STOPPING: "warn", STOPPED: "warn" };
/** Letters of a body that are shown. */
const MAX_BODY = 50000;

export function start(needToken) {
  const form = $("question");
  const adapt = () => {
    const token = form.elements.kind.value === "token";
    text($("credential-name"), token ? "Bearer token" : "Client key");
    $("credential").placeholder = token ? "eyJ…" : "pst_…";
    for (const field of form.querySelectorAll("[data-for]")) field.hidden = !isFor(field, form);
    for (const name of ["execution", "node"]) form.elements[name].required = isFor(form.elements[name].parentElement, form);
  };
  form.addEventListener("change", adapt);
  adapt();
  const run = async () => {
    const button = $("run");
    button.disabled = true;
    text(button, "Sending…");
    const begun = performance.now();
    const turn = {
      page: (page) => {
        $("q-page").value = page;
        run();
      },
      execution: (id) => {
        form.elements.resource.value = "execution";
        form.elements.execution.value = id;
        adapt();
        run();
      },
    };
    try {
      const target = targetOf(form);
      const explored = await get(`/explore${target === COLLECTION || target.startsWith(`${COLLECTION}?`) ? target.slice(COLLECTION.length) : target}`, credential(form));
      await findGateway();
      const sent = { target, resource: form.elements.resource.value, token: form.elements.kind.value === "token", account: $("account").value.trim() };
      show(explored, sent, performance.now() - begun, turn);
    } catch (error) {
      if (error instanceof TokenNeeded) needToken();
      else if (error instanceof NoAnswer) refuse("The gateway does not answer.", `It may be restarting; try again in a moment. (${error.message})`);
      else refuse("The request could not be made or read.", cut(error.message, 500));
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

const refuse = (title, words) => $("answer").replaceChildren(h("p", { class: "notice bad", role: "alert" }, h("b", {}, title), words));
const isFor = (field, form) => field.dataset.for.split(" ").includes(form.elements.resource.value);

/** The request target at the gateway. */
function targetOf(form) {
  const part = (name) => encodeURIComponent(form.elements[name].value.trim());
  const paths = { list: COLLECTION, execution: `${COLLECTION}/${part("execution")}`, batches: `${COLLECTION}/${part("execution")}/nodes/${part("node")}/batches` };
  const used = FILTERS.filter((name) => isFor(form.elements[name].closest("[data-for]"), form));
  const filters = new URLSearchParams(used.map((name) => [name, form.elements[name].value.trim()]).filter(([, value]) => value !== ""));
  const path = paths[form.elements.resource.value];
  return filters.size ? `${path}?${filters}` : path;
}

function credential(form) {
  const [secret, account] = [fieldValue($("credential").value.trim()), fieldValue($("account").value.trim())];
  const headers = form.elements.kind.value === "token" ? { "x-explore-authorization": `Bearer ${secret}` } : { "x-api-key": secret };
  return account ? { ...headers, linked_account_id: account } : headers;
}

function show(explored, sent, milliseconds, turn) {
  const headers = Object.fromEntries(explored.headers);
  const { status, body, question } = explored;
  const source = sourceOf(headers["cache-status"] ?? "");
  const took = `${Math.round(milliseconds)} ms`;
  const good = status === 200;
  text($("said"), good ? `Status 200, ${source}` : `${status}: ${cut(String(body?.message ?? ""), 300)}`);
  const pill = h("span", { class: `pill ${status < 300 ? "good" : status >= 500 ? "bad" : "warn"}` }, String(status));
  const outcome = (...words) => h("p", { class: "outcome" }, pill, ...words);
  const first = good
    ? h("article", { class: "card" }, outcome(h("b", {}, source), h("span", { class: "muted" }, took)), content(body, sent.resource, turn))
    : h("article", { class: "card" }, outcome(h("b", {}, cut(String(body?.error_code ?? "No executions"))), h("span", { class: "muted" }, took)), h("p", {}, cut(String(body?.message ?? "The body of the response is not JSON."), 1000)));
  $("answer").replaceChildren(first, curl(sent), ...(question ? [interpretation(question)] : []), responseHeaders(explored.headers), wholeResponse(explored, !good));
}

/** The content of a successful response. A body of a form that the table does not know is still shown as a whole, below. */
function content(body, resource, turn) {
  try {
    return resource === "execution" ? single(body) : page(body, resource, turn);
  } catch {
    return h("p", { class: "empty" }, "The body has another form than documented. It is shown below as the caller receives it.");
  }
}

function curl(sent) {
  const command = curlOf(sent);
  return h("article", { class: "card" }, h("div", { class: "head" }, h("h2", {}, "The same request with curl"), copyable(command, "Copy")), h("pre", { class: "code", id: "curl" }, command));
}

/** The response as the caller sees it: status, headers and body. */
function wholeResponse({ status, headers, body, text: plain }, open) {
  let words = plain;
  try {
    if (body != null) words = JSON.stringify(body, null, 2);
  } catch {
    words = "The body is nested too deeply to be shown. Use the curl command above.";
  }
  const lines = [`HTTP ${status}`, ...headers.map(([name, value]) => `${name}: ${value}`), "", cut(words ?? "", MAX_BODY)].join("\n");
  return h("article", { class: "card" }, h("h2", {}, "The response as the caller sees it"), h("details", { open }, h("summary", {}, "Status, headers and body"), h("pre", { class: "code", id: "response" }, lines)));
}

const COLUMNS = [["name", "Name"], ["status", "Status"], ["source", "Source"], ["created", "Created"], ["id", "Id"]];

/** The source of the response, in words. */
function sourceOf(cacheStatus) {
  if (cacheStatus.includes("detail=stale")) return "From the cache, stale, while it is fetched again";
  if (/; hit/.test(cacheStatus)) return "From the cache";
  return /collapsed/.test(cacheStatus) ? "Fetched from Refold, in one request with other callers" : "Fetched from Refold";
}

/** A value of a document as text, whatever its type. */
const words = (value) => cut(value == null ? "–" : typeof value === "object" ? "{…}" : String(value));

/** The time of a document, and how long ago that was. A text that is no time is shown as it is. */
function time(value) {
  const seconds = (Date.now() - Date.parse(value)) / 1000;
  if (!Number.isFinite(seconds)) return words(value);
  return { fixed: h("time", { datetime: value, title: value }, ago(Math.max(0, seconds))) };
}

const state = (one) => ({ fixed: h("span", { class: `pill ${STATES[one.status] ?? ""}`, title: one.status }, words(one.status)) });

function page(body, resource, turn) {
  if (!body.docs.length) return h("p", { class: "empty" }, body.totalDocs ? "This page is empty." : "Nothing matches the query.");
  const open = (one) => {
    const name = words(one.name ?? one.associated_workflow?.name);
    return resource === "list" && typeof one._id === "string" ? h("button", { type: "button", class: "open", title: "Read this execution", on: { click: () => turn.execution(one._id) } }, name) : name;
  };
  const rows = body.docs.map((given) => given ?? {}).map((one) => [
    open(one),
    state(one),
    words(one.execution_source),
    time(one.createdAt),
    { fixed: one._id ? copyable(String(one._id), `…${String(one._id).slice(-8)}`) : "–" },
  ]);
  const button = (label, to) => h("button", { type: "button", disabled: to == null, on: { click: () => turn.page(to) } }, label);
  const kind = resource === "list" ? "Executions" : "Batches";
  return h(
    "div",
    {},
    table("executions", `${kind} ${words(body.pagingCounter)} to ${words(body.pagingCounter + body.docs.length - 1)} of ${words(body.totalDocs)}`, COLUMNS, rows),
    h("div", { class: "pages" }, h("span", { class: "muted" }, `Page ${words(body.page)} of ${words(body.totalPages)}`), h("div", {}, button("Previous", body.prevPage), button("Next", body.nextPage))),
  );
}

/** The plain fields of a single document. */
function single(body) {
  const fields = Object.entries(body).filter(([, value]) => value != null && typeof value !== "object");
  return h("dl", { class: "keys", id: "document" }, fields.flatMap(([name, value]) => [h("dt", {}, h("code", {}, cut(name))), h("dd", {}, words(value))]));
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
      h("dd", {}, h("code", { id: "canonical" }, cut(question.canonical, 2000))),
      h("dt", {}, "Request to Refold"),
      h("dd", {}, h("code", {}, cut(question.upstream, 2000))),
      h("dt", {}, "Cache key"),
      h("dd", { class: "parts" }, part(`tenant ${question.tenant}`), part(question.linked_account ? `linked account ${question.linked_account}` : "this session token"), part("canonical query")),
      h("dt", {}, "Caller"),
      h("dd", {}, question.caller),
    ),
  );
}

/** The budgets that RateLimit and RateLimit-Policy name. */
const BUDGETS = { account: "the linked account's budget", token: "the session token's budget", key: "the client key's own budget", upstream: "the budget at Refold" };
const capitalised = (text) => text[0].toUpperCase() + text.slice(1);
const budgets = (value, item, sentence) => [...value.matchAll(item)].map(([, name, one, other]) => sentence(BUDGETS[name] ?? name, one, other)).join(" ");

/** The meaning of each response header, in words. */
const WORDS = {
  "cache-status": (value) => {
    const left = value.match(/ttl=(-?\d+)/)?.[1];
    if (value.includes("detail=stale")) return `From the cache, stale for ${-left} s; it is being fetched again, or Refold can't be reached.`;
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
  ratelimit: (value) => budgets(value, /"(\w+)";r=(\d+);t=(\d+)/g, (owner, left, full) => `Of ${owner}, ${left} more requests may follow at once; it is full again in ${full} s.`),
  "ratelimit-policy": (value) => budgets(value, /"(\w+)";q=(\d+);w=(\d+)/g, (owner, quota, window) => `${capitalised(owner)} grants ${quota} requests in ${window} s.`),
  "retry-after": (value) => `Try again in ${value} s.`,
  "x-request-id": () => "Identifies this request in the log and in the list of recent errors.",
  "www-authenticate": () => "The gateway does not know the credential.",
  vary: () => "The answer depends on these request headers, so a cache must not share it between callers.",
  "content-type": () => "The media type of the body.",
};

function responseHeaders(headers) {
  const order = Object.keys(WORDS);
  const sorted = headers.filter(([name]) => name in WORDS).sort(([one], [other]) => order.indexOf(one) - order.indexOf(other));
  const rows = sorted.map(([name, value]) => [h("code", {}, name), h("code", {}, cut(value, 500)), WORDS[name](value)]);
  return h("article", { class: "card" }, h("h2", {}, "Response headers"), table("headers", "Headers of the gateway's response and their meaning", [["name", "Header"], ["value", "Value"], ["meaning", "Meaning"]], rows));
}
