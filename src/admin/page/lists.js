// The cards of client keys and of events, and the purge form.

import { post } from "./api.js";
import { $, clock, count, cut, h, table, text } from "./dom.js";

/** Keys that are shown until the button for all of them is used. */
const FEW = 10;
/** Days before its expiry from which a key is marked. */
const SOON = 14;
let allKeys = false;
let shownKeys = "";

export function showKeys(keys, at) {
  const box = $("keys");
  const sorted = [...keys].sort((one, other) => other.limited - one.limited || other.requests - one.requests);
  const state = JSON.stringify([sorted, allKeys]);
  if (state === shownKeys) return;
  shownKeys = state;
  if (!keys.length) {
    box.replaceChildren(h("p", { class: "empty" }, "The configuration has no client keys."));
    return;
  }
  const many = new Set(keys.map((key) => key.tenant)).size > 1;
  const rows = (allKeys ? sorted : sorted.slice(0, FEW)).map((key) => [
    [h("span", {}, cut(key.name)), h("span", { class: "muted small" }, many ? `${key.tenant}, ${key.access}` : key.access)],
    { fixed: [count(key.requests / 60), " /s", key.per_second != null && h("span", { class: "muted small" }, `of ${count(key.per_second)}`)] },
    { fixed: h("span", { class: key.limited ? "pill warn" : "" }, count(key.limited)) },
    { fixed: key.last_used_seconds_ago == null ? h("span", { class: "muted", title: "since the process started" }, "not used") : clock(at, key.last_used_seconds_ago, h("time")) },
    { fixed: expiry(key.expires, at) },
  ]);
  const columns = [["name", "Key"], ["rate", "Rate"], ["limited", "429s"], ["used", "Last use"], ["expires", "Expiry"]];
  const hadFocus = document.activeElement?.id === "more-keys";
  const more = () => {
    allKeys = !allKeys;
    showKeys(keys, at);
  };
  box.replaceChildren(
    table("keys", "Requests of the last minute, those with most 429s first", columns, rows),
    ...(keys.length > FEW ? [h("button", { type: "button", id: "more-keys", class: "more", on: { click: more } }, allKeys ? "Show fewer" : `Show all ${keys.length}`)] : []),
  );
  if (hadFocus) $("more-keys")?.focus();
}

function expiry(expires, at) {
  if (!expires) return h("span", { class: "muted" }, "never");
  const days = (Date.parse(expires) - Date.parse(at)) / 864e5;
  const day = expires.slice(0, 10);
  if (days <= 0) return h("span", { class: "pill bad", title: expires }, `expired ${day}`);
  return days < SOON ? h("span", { class: "pill warn", title: expires }, `${day}, in ${count(Math.floor(days))} d`) : h("span", { title: expires }, day);
}

const EVENTS = {
  config_reloaded: ["good", "Configuration reloaded"],
  config_refused: ["bad", "New configuration refused"],
  upstream_circuit_opened: ["bad", "Circuit to Refold opened"],
  upstream_rejected_org_key: ["bad", "Refold refuses the org key"],
  purged: ["plain", "Cache purged"],
  fleet_script_failed: ["bad", "The fleet's server refuses a script"],
  fleet_state_changed: ["bad", "The fleet's server is away"],
  fleet_state_lost: ["warn", "The fleet's server has lost its data"],
  fleet_too_many_replicas: ["bad", "Too many replicas in the fleet"],
  fleet_unreachable: ["bad", "The fleet's server can't be reached"],
};
const opened = new Set();
let shownEvents = "";

/** Events that are shown. */
const LATEST = 12;

export function showEvents(kept, at) {
  const events = kept.slice(0, LATEST);
  const box = $("events");
  const ageOf = (event) => Math.max(0, (Date.parse(at) - Date.parse(event.at)) / 1000);
  const state = JSON.stringify(events);
  if (state === shownEvents) {
    box.querySelectorAll("time").forEach((time, position) => clock(at, ageOf(events[position]), time));
    return;
  }
  shownEvents = state;
  if (!events.length) {
    box.replaceChildren(h("li", { class: "empty" }, "None since the process started."));
    return;
  }
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const one = (event) => {
    const isBack = event.event === "fleet_state_changed" && !event.details.endsWith("alone");
    const [kind, words] = isBack ? ["good", "The fleet's server is back"] : EVENTS[event.event] ?? ["", event.event];
    const key = event.at + event.event;
    const toggle = (change) => (change.target.open ? opened.add(key) : opened.delete(key));
    const scope = event.event === "purged" ? [event.tenant ?? "all tenants", event.details].filter(Boolean).join(", ") : event.tenant;
    const details = event.event !== "purged" && event.details;
    return h(
      "li",
      {},
      clock(at, ageOf(event), h("time")),
      h("div", {}, h("span", { class: `pill ${kind}` }, words), scope && h("span", { class: "scope" }, ` ${cut(scope)}`), details && h("details", { open: opened.has(key), on: { toggle } }, h("summary", { "data-id": key }, event.event === "config_reloaded" ? "Changes" : "Reason"), h("pre", {}, details))),
    );
  };
  box.replaceChildren(...events.map(one));
  if (focused) box.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}

/** Offers the tenants in the purge form. */
export function offerTenants(ids) {
  const select = $("purge-tenant");
  if (JSON.stringify([...select.options].map((option) => option.value)) === JSON.stringify(ids)) return;
  select.replaceChildren(...ids.map((id) => h("option", {}, id)));
  $("purge-tenants").hidden = ids.length < 2;
}

export function startPurge(needToken) {
  $("purge").addEventListener("submit", async (event) => {
    event.preventDefault();
    const account = $("purge-account").value;
    try {
      await post("/purge", { tenant: $("purge-tenant").value, linked_account: account });
      text($("purged"), `The cached answers of ${cut(account)} are dropped.`);
      $("purge-account").value = "";
    } catch (error) {
      if (error.name === "TokenNeeded") needToken();
      else text($("purged"), `Nothing was purged: ${error.message}.`);
    }
  });
}

