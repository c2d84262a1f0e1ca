// The status view: each function shows one part of /status.

import { bar, bins, dial, gauge, range, scale, smooth, spark, stack } from "./charts.js";
import { $, ago, bytes, copyable, count, duration, h, microseconds, table, text } from "./dom.js";

const add = (...series) => series[0].map((_, at) => series.reduce((sum, one) => sum + one[at], 0));
const total = (series) => series.reduce((sum, value) => sum + value, 0);
const last = (series, seconds) => series.slice(-seconds);

const LAYERS = [
  ["cached", "from the cache"],
  ["fetched", "fetched from Refold"],
  ["limited", "rate limited (429)"],
  ["refused", "refused (4xx)"],
  ["failed", "failed (5xx)"],
];

export function show(status) {
  const { traffic } = status;
  const series = {
    cached: add(traffic.hit, traffic.stale),
    fetched: add(traffic.fetched, traffic.passed),
    limited: traffic.limited,
    refused: traffic.refused,
    failed: traffic.failed,
  };
  const seconds = shownSeconds(status.uptime);
  showTraffic(series, seconds);
  showRatio(series.cached, traffic.fetched, traffic.stale, seconds);
  showBudgets(status.tenants);
  showLatency(status.latency);
  showReadiness(status);
  showCache(status.cache);
  showBusiest(status.busiest, status.tenants.length > 1);
  showErrors(status.errors);
  text($("about"), `Postern ${status.version}, running for ${duration(status.uptime)}`);
}

/** The chart covers less than five minutes while the gateway has run for less. */
const shownSeconds = (uptime) => [60, 120].find((seconds) => uptime < seconds) ?? 300;

function showTraffic(series, seconds) {
  const layers = LAYERS.map(([name]) => [name, last(smooth(series[name]), seconds)]);
  const top = stack($("traffic-chart"), layers);
  const rate = layers.reduce((sum, [, values]) => sum + values.at(-1), 0);
  const all = LAYERS.reduce((sum, [name]) => sum + total(series[name]), 0);
  text($("rate"), count(rate));
  text($("traffic-most"), all ? `${count(top)}/s` : "");
  $("traffic-empty").hidden = all > 0;
  const ticks = seconds > 60 ? [...Array(seconds / 60 + 1).keys()].reverse().map(String) : ["60", "45", "30", "15", "0"];
  ticks[0] += seconds > 60 ? " min ago" : " s ago";
  ticks[ticks.length - 1] = "now";
  if ($("traffic-ticks").childElementCount !== ticks.length) $("traffic-ticks").replaceChildren(...ticks.map((words) => h("span", {}, words)));
  const sums = LAYERS.map(([name, words]) => [name, words, total(series[name])]);
  $("traffic-legend").replaceChildren(
    ...sums.map(([name, words, sum]) => h("li", { class: name }, h("b", {}, count(sum)), ` ${words}`)),
  );
  const words = sums.map(([, name, sum]) => `${count(sum)} ${name}`).join(", ");
  $("traffic-chart").setAttribute("aria-label", `Answers of the last five minutes: ${words}. Now ${count(rate)} per second.`);
}

function showRatio(cached, fetched, stale, seconds) {
  const share = (hits, misses) => (hits + misses ? hits / (hits + misses) : null);
  const now = share(total(last(cached, 60)), total(last(fetched, 60)));
  dial($("ratio-dial"), now);
  const percent = now == null ? "–" : `${count(Math.floor(now * 1000) / 10)} %`;
  text($("ratio"), percent);
  $("ratio-dial").setAttribute("aria-label", now == null ? "No requests in the last minute" : `${percent} in the last minute`);
  const hits = smooth(cached, 10);
  const misses = smooth(fetched, 10);
  spark($("ratio-chart"), last(hits.map((value, at) => share(value, misses[at])), seconds));
  const old = total(last(stale, 60));
  const words = now == null ? "No cacheable requests in the last minute" : "of the cacheable requests, in the last minute";
  text($("ratio-words"), old ? `${words}; ${count(old)} stale, while the answer was fetched again` : words);
}

const used = (tenant) => total(last(tenant.upstream.used, 5)) / 5;

function showBudgets(tenants) {
  const share = (tenant) => used(tenant) / tenant.upstream.per_second;
  const sorted = [...tenants].sort((one, other) => share(other) - share(one));
  $("budgets").replaceChildren(...sorted.slice(0, 4).map((tenant, at) => budget(tenant, at === 0)));
}

function budget(tenant, large) {
  const { per_second: limit, burst, used: seconds, waiting, max_queue: queue, pace, held_for: held } = tenant.upstream;
  const rate = used(tenant);
  const state = held > 0 ? ["bad", `paused for ${duration(Math.ceil(held))}`] : waiting ? ["warn", `${count(waiting)} waiting`] : ["good", "free"];
  const words = `${count(rate)} of ${count(limit)} requests per second`;
  return h(
    "div",
    { class: "tenant" },
    h("div", { class: "name" }, h("span", {}, tenant.id), h("span", { class: `pill ${state[0]}` }, state[1])),
    large
      ? h("div", { class: "gauge", role: "img", "aria-label": words }, gauge(rate / limit), h("p", { class: "figure" }, h("b", {}, count(rate)), h("span", {}, `of ${count(limit)} per second`)))
      : h("p", {}, words),
    large && bins(seconds, Math.max(limit, ...seconds), `${count(total(seconds))} requests in the last minute`),
    h(
      "dl",
      { class: "facts" },
      h("div", {}, h("dt", {}, "last minute"), h("dd", {}, count(total(seconds)))),
      h("div", {}, h("dt", {}, "waiting"), h("dd", {}, `${count(waiting)} of ${count(queue)}`)),
      h("div", {}, h("dt", {}, pace < 1 ? "rate after 429" : "burst"), h("dd", {}, pace < 1 ? `${count(pace * 100)} %` : count(burst))),
    ),
  );
}

function showLatency(latency) {
  const one = (name, words, quantiles) =>
    h(
      "div",
      { class: `speed ${name}` },
      h("div", { class: "name" }, h("b", {}, words), h("span", { class: "muted small" }, quantiles ? `${count(quantiles.count)} answers` : "none")),
      range(quantiles?.p50, quantiles?.p99),
      h(
        "p",
        { class: "values" },
        h("span", {}, h("b", {}, quantiles ? microseconds(quantiles.p50) : "–"), h("span", { class: "muted small" }, "median")),
        h("span", {}, h("b", {}, quantiles ? microseconds(quantiles.p99) : "–"), h("span", { class: "muted small" }, "99th percentile")),
      ),
    );
  $("latencies").replaceChildren(
    one("cached", "From the cache", latency.hits),
    one("fetched", "Fetched from Refold", latency.fetches),
    scale(),
  );
}

const CIRCUIT = {
  closed: ["good", "closed", "Refold answers"],
  half_open: ["warn", "half open", "one trial request checks if Refold answers again"],
  open: ["bad", "open", "too many requests fail, so none are sent for a moment"],
};

function showReadiness(status) {
  const state = (name, words, [kind, pill]) => h("li", {}, h("span", {}, name, h("span", { class: "muted small" }, words)), h("span", { class: `pill ${kind}` }, pill));
  const tenant = (one) => {
    const accounts = `${count(one.linked_accounts)} linked ${one.linked_accounts === 1 ? "account" : "accounts"}, mode ${one.mode}`;
    if (!one.credential_accepted) return state(one.id, "Refold rejects the org key", ["bad", "key rejected"]);
    if (one.circuit === "open") return state(one.id, accounts, ["bad", "circuit open"]);
    if (one.budget === "held") return state(one.id, accounts, ["warn", "paused by Refold"]);
    return state(one.id, accounts, ["good", "ready"]);
  };
  const [kind, pill, words] = CIRCUIT[status.circuit];
  $("states").replaceChildren(
    ...status.tenants.map(tenant),
    state("Circuit to Refold", words, [kind, pill]),
    state("Configuration", status.configuration.ok ? "the last one that was read" : "the new one was refused, the previous one is in effect", status.configuration.ok ? ["good", "in effect"] : ["bad", "refused"]),
  );
}

function showCache(cache) {
  if (!cache.capacity) {
    $("cache").replaceChildren(h("p", { class: "muted small" }, "The cache is off: its capacity is 0."));
    return;
  }
  const share = cache.bytes / cache.capacity;
  $("cache").replaceChildren(
    h("div", { class: "fill" }, bar(share)),
    h("p", { class: "small" }, `${bytes(cache.bytes)} of ${bytes(cache.capacity)}`, h("span", { class: "muted" }, `, ${count(cache.entries)} answers`)),
  );
}

function showBusiest(busiest, named) {
  if (!busiest.length) {
    $("busiest").replaceChildren(h("li", { class: "empty" }, "No requests in the last minute."));
    return;
  }
  const most = busiest[0].requests;
  $("busiest").replaceChildren(
    ...busiest.map((one) => h("li", {}, bar(one.requests / most), h("span", {}, one.linked_account ?? "(not shown)", named && h("span", { class: "muted" }, ` ${one.tenant}`)), h("b", {}, count(one.requests)))),
  );
}

const kindOf = (status) => (status >= 500 ? "bad" : status === 429 ? "warn" : "plain");
/** Errors that are shown until the button for all of them is used. */
const FEW = 8;
let shownErrors = "";
let allErrors = false;

function showErrors(errors) {
  const box = $("errors");
  const some = allErrors ? errors : errors.slice(0, FEW);
  const ids = some.map((error) => error.request_id).join();
  if (ids === shownErrors && box.firstChild) {
    box.querySelectorAll("time").forEach((time, at) => text(time, ago(some[at].seconds_ago)));
    return;
  }
  shownErrors = ids;
  if (!errors.length) {
    box.replaceChildren(h("p", { class: "empty" }, "None. No request was refused or failed."));
    return;
  }
  // The keyboard focus stays on its button.
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const rows = some.map((error) => [
    { fixed: h("time", {}, ago(error.seconds_ago)) },
    { fixed: h("span", { class: `pill ${kindOf(error.status)}` }, String(error.status)) },
    [h("code", {}, error.error_code || "–"), error.cause && h("span", { class: "muted small" }, error.cause)],
    error.endpoint.replace("_", " "),
    error.linked_account ?? error.tenant ?? "unknown caller",
    { fixed: copyable(error.request_id, `${error.request_id.slice(0, 8)}…`) },
  ]);
  const more = () => {
    allErrors = !allErrors;
    showErrors(errors);
    $("more")?.focus();
  };
  const caption = "Requests that were refused or failed, newest first";
  box.replaceChildren(
    table("failures", caption, [["when", "When"], ["status", "Status"], ["code", "Code"], ["asked", "Resource"], ["account", "Linked account"], ["id", "Request id"]], rows),
    ...(errors.length > FEW ? [h("button", { type: "button", id: "more", class: "more", "data-id": "more", on: { click: more } }, allErrors ? "Show fewer" : `Show the last ${errors.length}`)] : []),
  );
  if (focused) box.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}
