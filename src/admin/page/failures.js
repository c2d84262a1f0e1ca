// The card of errors: requests that failed or were refused, grouped by status, code, tenant, account and key.

import { $, clock, copyable, count, cut, h } from "./dom.js";

const kindOf = (status) => (status >= 500 ? "bad" : status === 429 ? "warn" : "plain");
/** Groups that are shown until the button for all of them is used. */
const FEW = 6;
const opened = new Set();
const all = { failed: false, refused: false };
let shown = "";

/** Groups errors; the group with the newest error comes first, as the errors do. */
export function grouped(errors) {
  const groups = new Map();
  for (const error of errors) {
    const key = JSON.stringify([error.status, error.error_code, error.reason, error.tenant, error.linked_account, error.caller]);
    if (!groups.has(key)) groups.set(key, { key, errors: [] });
    groups.get(key).errors.push(error);
  }
  return [...groups.values()];
}

/** A code that wraps behind its underscores, not within a word. */
const breakable = (code) => code.split(/(?<=_)/).flatMap((word) => [word, h("wbr")]);

export function showErrors(errors, at) {
  const box = $("errors");
  const state = JSON.stringify([errors.map((error) => error.request_id), all]);
  if (state === shown && box.firstChild) {
    const ages = new Map(errors.map((error) => [error.request_id, error.seconds_ago]));
    box.querySelectorAll("time[data-of]").forEach((time) => clock(at, ages.get(time.dataset.of), time));
    return;
  }
  shown = state;
  if (!errors.length) {
    box.replaceChildren(h("p", { class: "empty" }, "None. No request was refused or failed."));
    return;
  }
  // The keyboard focus stays on its element.
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  const again = () => showErrors(errors, at);
  const failed = errors.filter((error) => error.status >= 500);
  const refused = errors.filter((error) => error.status < 500);
  box.replaceChildren(
    ...part("failed", "Failed (5xx)", "No request has failed.", failed, at, again),
    ...part("refused", "Refused (4xx)", "No request was refused.", refused, at, again),
  );
  if (focused) box.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}

function part(name, title, none, errors, at, again) {
  const groups = grouped(errors);
  const more = () => {
    all[name] = !all[name];
    again();
  };
  const some = all[name] ? groups : groups.slice(0, FEW);
  return [
    h("h3", {}, title, groups.length > 0 && h("span", { class: "muted" }, ` the last ${count(errors.length)}`)),
    groups.length ? h("ul", { class: `groups ${name}` }, some.map((group) => h("li", {}, groupOf(group, at)))) : h("p", { class: "empty" }, none),
    groups.length > FEW && h("button", { type: "button", class: "more", "data-id": `more-${name}`, on: { click: more } }, all[name] ? "Show fewer" : `Show all ${groups.length} kinds`),
  ].filter(Boolean);
}

function groupOf({ key, errors }, at) {
  const first = errors[0];
  const toggle = (event) => (event.target.open ? opened.add(key) : opened.delete(key));
  const time = (error) => h("time", { "data-of": error.request_id });
  const one = (error) =>
    h(
      "li",
      {},
      clock(at, error.seconds_ago, time(error)),
      h("span", {}, error.endpoint.replace("_", " "), error.cause && h("span", { class: "muted small cause" }, cut(error.cause, 600))),
      copyable(error.request_id, `${error.request_id.slice(0, 8)}…`),
    );
  return h(
    "details",
    { open: opened.has(key), on: { toggle } },
    h(
      "summary",
      { "data-id": key },
      h("span", { class: `pill ${kindOf(first.status)}` }, String(first.status)),
      h("span", { class: "of" }, h("code", {}, breakable(cut(first.error_code || "–"))), first.reason && h("span", { class: "muted small" }, first.reason.replaceAll("_", " "))),
      h("span", { class: "from" }, h("span", {}, cut(first.linked_account ?? first.tenant ?? "unknown caller")), h("span", { class: "muted small" }, first.caller ? `key ${cut(first.caller)}` : "no known key")),
      h("b", { title: `${errors.length} of the last errors` }, `${count(errors.length)}×`),
      h("span", { class: "last" }, clock(at, first.seconds_ago, time(first))),
    ),
    h("ul", { class: "single" }, errors.map(one)),
  );
}
