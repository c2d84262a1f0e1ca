// The card of errors: requests that failed or were refused, and renewals that failed, as /status groups them.

import { $, clock, copyable, count, cut, duration, h } from "./dom.js";

const kindOf = (status) => (status >= 500 ? "bad" : status === 429 ? "warn" : "plain");
/** Groups that are shown until the button for all of them is used. */
const FEW = 6;
const opened = new Set();
const all = { failed: false, renewals: false, refused: false };
let shown = "";

/** What a group of requests and a group of renewals show in the same places. */
const ofRequests = (group) => ({
  ...group,
  key: JSON.stringify([group.status, group.error_code, group.reason, group.tenant, group.linked_account, group.caller]),
  pill: [kindOf(group.status), String(group.status)],
  by: group.caller ? `key ${cut(group.caller)}` : "no known key",
  last: group.last.map((error) => ({ ...error, what: error.endpoint.replace("_", " "), id: error.request_id })),
});
const ofRenewals = (group) => ({
  ...group,
  key: JSON.stringify(["renewal", group.upstream_status, group.error_code, group.tenant, group.linked_account]),
  pill: ["warn", String(group.upstream_status ?? "–")],
  by: group.upstream_status ? "Refold's answer" : "no answer of Refold's",
  last: group.last.map((error) => ({ ...error, what: error.query, cause: error.upstream_message ?? error.cause, id: error.upstream_request_id })),
});

/** A code that wraps behind its underscores, not within a word. */
const breakable = (code) => code.split(/(?<=_)/).flatMap((word) => [word, h("wbr")]);

export function showErrors(errors, renewals, at) {
  const box = $("errors");
  const parts = [
    ["failed", "Failed (5xx)", "No request has failed.", errors.filter((group) => group.status >= 500).map(ofRequests)],
    ["renewals", "Renewals that failed", "", renewals.map(ofRenewals)],
    ["refused", "Refused (4xx)", "No request was refused.", errors.filter((group) => group.status < 500).map(ofRequests)],
  ];
  const groups = parts.flatMap(([, , , groups]) => groups);
  // An error changes the count of its group, so that groups with the same counts have the same errors.
  const state = JSON.stringify([groups.map((group) => [group.key, group.count]), all]);
  if (state === shown && box.firstChild) {
    const ages = new Map(groups.flatMap((group) => group.last.map((error, index) => [group.key + index, error.seconds_ago])));
    box.querySelectorAll("time[data-of]").forEach((time) => clock(at, ages.get(time.dataset.of), time));
    return;
  }
  shown = state;
  if (!groups.length) {
    box.replaceChildren(h("p", { class: "empty" }, "None. No request was refused or failed."));
    return;
  }
  // The keyboard focus stays on its element.
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const again = () => showErrors(errors, renewals, at);
  box.replaceChildren(...parts.flatMap((one) => part(one, at, again)));
  if (focused) box.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}

function part([name, title, none, groups], at, again) {
  if (!groups.length && !none) return [];
  const more = () => {
    all[name] = !all[name];
    again();
  };
  const some = all[name] ? groups : groups.slice(0, FEW);
  return [
    h("h3", {}, title, name === "renewals" && h("span", { class: "muted" }, " callers got stale pages")),
    groups.length ? h("ul", { class: `groups ${name}` }, some.map((group) => h("li", {}, groupOf(group, at)))) : h("p", { class: "empty" }, none),
    groups.length > FEW && h("button", { type: "button", class: "more", "data-id": `more-${name}`, on: { click: more } }, all[name] ? "Show fewer" : `Show all ${groups.length} kinds`),
  ].filter(Boolean);
}

function groupOf(group, at) {
  const { key, pill, last } = group;
  const toggle = (event) => (event.target.open ? opened.add(key) : opened.delete(key));
  const time = (index) => clock(at, last[index].seconds_ago, h("time", { "data-of": key + index }));
  const one = (error, index) =>
    h(
      "li",
      {},
      time(index),
      h("span", {}, cut(error.what, 200), error.cause && h("span", { class: "muted small cause" }, cut(error.cause, 600))),
      error.id && copyable(error.id, `${error.id.slice(0, 8)}…`),
    );
  return h(
    "details",
    { open: opened.has(key), on: { toggle } },
    h(
      "summary",
      { "data-id": key },
      h("span", { class: `pill ${pill[0]}` }, pill[1]),
      h("span", { class: "of" }, h("code", {}, breakable(cut(group.error_code || "–"))), group.reason && h("span", { class: "muted small" }, group.reason.replaceAll("_", " "))),
      h("span", { class: "from" }, h("span", {}, cut(group.linked_account ?? group.tenant ?? "unknown caller")), h("span", { class: "muted small" }, group.by)),
      h("b", { title: `${group.count} in the last ${duration(group.first_seconds_ago)}` }, `${count(group.count)}×`),
      h("span", { class: "last" }, time(0)),
    ),
    h("ul", { class: "single" }, last.map(one)),
  );
}
