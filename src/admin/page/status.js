// The status view: each function shows one part of /status.

import { bar, bins, dial, gauge, range, scale, smooth, spark, stack } from "./charts.js";
import { $, bytes, count, cut, duration, h, microseconds, text } from "./dom.js";
import { showErrors } from "./failures.js";
import { offerTenants, showEvents, showKeys } from "./lists.js";

const total = (series) => series.reduce((sum, value) => sum + value, 0);
const last = (series, seconds) => series.slice(-seconds);

const LAYERS = [
  ["cached", "from the cache, fresh"],
  ["stale", "from the cache, stale"],
  ["fetched", "fetched from Refold"],
  ["passed", "passed through"],
  ["limited", "rate limited (429)"],
  ["refused", "refused (4xx)"],
  ["failed", "failed (5xx)"],
];

export function show(status) {
  const { traffic } = status;
  const series = {
    cached: traffic.hit,
    stale: traffic.stale,
    fetched: traffic.fetched,
    passed: traffic.passed,
    limited: traffic.limited,
    refused: traffic.refused,
    failed: traffic.failed,
  };
  const seconds = shownSeconds(status.uptime);
  showTraffic(series, seconds);
  showRatio(series, seconds);
  showLatency(status.latency);
  showCache(status.cache);
  const ids = status.tenants.map((tenant) => tenant.id);
  offerFilter(ids);
  offerTenants(ids);
  showTenants(status);
  text($("about"), `Postern ${status.version} on ${status.host}, running for ${duration(status.uptime)}`);
  text($("host"), status.host);
  document.title = `Postern on ${status.host}`;
}

/** The cards that the tenant filter narrows. */
function showTenants(status) {
  const wanted = $("tenant").value;
  const of = (list, id) => list.filter((one) => !wanted || one[id] === wanted);
  const tenants = of(status.tenants, "id");
  showBudgets(tenants);
  showReadiness(status, tenants);
  showBusiest(of(status.busiest, "tenant"), tenants.length > 1);
  showErrors(of(status.errors, "tenant"), of(status.renewal_errors, "tenant"), status.at);
  showKeys(of(status.client_keys, "tenant"), status.at);
  // An event without a tenant concerns all of them.
  showEvents(status.events.filter((event) => !wanted || !event.tenant || event.tenant === wanted), status.at);
}

/** Offers the tenants in the filter. A tenant that a reload has removed is no longer the chosen one. */
function offerFilter(ids) {
  $("filter").hidden = ids.length < 2;
  const select = $("tenant");
  if (JSON.stringify([...select.options].slice(1).map((option) => option.value)) === JSON.stringify(ids)) return;
  const chosen = ids.includes(select.value) ? select.value : "";
  select.replaceChildren(h("option", { value: "" }, "All tenants"), ...ids.map((id) => h("option", { value: id }, cut(id))));
  select.value = chosen;
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

const SOURCES = [["cached", "fresh"], ["stale", "stale"], ["fetched", "fetched"]];

/** Fresh, stale and fetched answers apart: a stale one comes from the cache, but is old. */
function showRatio(series, seconds) {
  const sums = SOURCES.map(([name]) => total(last(series[name], 60)));
  const all = total(sums);
  const percent = (value) => `${count(Math.floor((value / all) * 1000) / 10)} %`;
  dial($("ratio-dial"), SOURCES.map(([name], at) => [name, all ? sums[at] / all : 0]));
  text($("ratio"), all ? percent(sums[0]) : "–");
  const words = SOURCES.map(([, name], at) => `${all ? percent(sums[at]) : "–"} ${name}`);
  $("ratio-dial").setAttribute("aria-label", all ? `${words.join(", ")} in the last minute` : "No requests in the last minute");
  $("ratio-legend").replaceChildren(...SOURCES.map(([name, label], at) => h("li", { class: name, title: `${count(sums[at])} in the last minute` }, h("b", {}, all ? percent(sums[at]) : "–"), ` ${label}`)));
  const parts = SOURCES.map(([name]) => smooth(series[name], 10));
  const fresh = parts[0].map((value, at) => {
    const sum = value + parts[1][at] + parts[2][at];
    return sum ? value / sum : null;
  });
  spark($("ratio-chart"), last(fresh, seconds));
  text($("ratio-words"), all ? "of the cacheable requests, in the last minute" : "No cacheable requests in the last minute");
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
        h("span", {}, h("b", {}, quantiles ? microseconds(quantiles.p50) : "–"), h("abbr", { class: "muted small", title: "The median: half of the answers were at least as fast" }, "p50")),
        h("span", {}, h("b", {}, quantiles ? microseconds(quantiles.p99) : "–"), h("abbr", { class: "muted small", title: "The 99th percentile: one answer in a hundred was slower" }, "p99")),
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

const FLEET = {
  shared: ["good", "shared", "budgets are shared with the other replicas"],
  limbo: ["warn", "waiting", "the fleet's server has not answered for a moment"],
  alone: ["bad", "alone", "the fleet's server is away, and this replica goes on with its share"],
  joining: ["warn", "joining", "the fleet's server has yet to confirm this replica"],
};

/** The replica in its fleet. */
function fleet(one, state) {
  const [kind, pill, words] = FLEET[one.state];
  const members = `${count(one.live)} of at most ${count(one.replicas)} replicas`;
  const cache = one.cache_current ? "" : "cached answers count as stale, since others may have dropped them";
  return state(`Fleet ${one.name}`, [members, words, cache, one.problem].filter(Boolean).join("; "), [kind, pill]);
}

function showReadiness(status, tenants) {
  const state = (name, words, [kind, pill]) => h("li", {}, h("span", {}, name, h("span", { class: "muted small" }, words)), h("span", { class: `pill ${kind}` }, pill));
  const tenant = (one) => {
    const accounts = `${count(one.linked_accounts)} linked ${one.linked_accounts === 1 ? "account" : "accounts"}, mode ${one.mode}`;
    if (!one.credential_accepted) return state(one.id, "Refold rejects the org key", ["bad", "key rejected"]);
    if (one.circuit === "open") return state(one.id, accounts, ["bad", "circuit open"]);
    const check = one.key_check?.result === "unclear" ? "; Refold's last answer about the org key was unclear" : "";
    if (one.budget === "held") return state(one.id, accounts, ["warn", "paused by Refold"]);
    return state(one.id, accounts + check, ["good", "ready"]);
  };
  const webhooks = (one) => {
    const seconds = one.last_webhook && (Date.parse(status.at) - Date.parse(one.last_webhook)) / 1000;
    const words = one.last_webhook ? `the last one ${duration(Math.max(0, Math.round(seconds)))} ago` : "none since the process started";
    return state(`Webhooks of ${one.id}`, words, one.last_webhook ? ["good", "received"] : ["", "none"]);
  };
  const [kind, pill, words] = CIRCUIT[status.circuit];
  $("states").replaceChildren(
    ...tenants.map(tenant),
    ...tenants.filter((one) => one.webhooks).map(webhooks),
    state("Circuit to Refold", words, [kind, pill]),
    ...(status.fleet ? [fleet(status.fleet, state)] : []),
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
    ...busiest.map((one) => h("li", {}, bar(one.requests / most), h("span", {}, cut(one.linked_account ?? "(not shown)"), named && h("span", { class: "muted" }, ` ${one.tenant}`)), h("b", {}, count(one.requests)))),
  );
}
