// The page: selects the view, polls the status, and reports when there is no answer.

import { TokenNeeded, get, token } from "./api.js";
import { $, h, text } from "./dom.js";
import { showConfig } from "./config.js";
import { start } from "./explorer.js";
import { startPurge } from "./lists.js";
import { show } from "./status.js";

/** Milliseconds between two polls. */
const INTERVAL = 1000;
/** The longest pause after failures. */
const MAX_INTERVAL = 15000;

let failures = 0;
let timer = null;
let polling = false;
/** The last status. */
let latest = null;

async function poll() {
  clearTimeout(timer);
  // A hidden page does not poll.
  if (document.hidden || polling) return;
  polling = true;
  try {
    const status = await get("/status");
    failures = 0;
    hideToken();
    // A link can't send the token.
    $("raw").hidden = token.get() != null;
    document.body.classList.remove("asleep");
    latest = status;
    show(status);
    showVerdict(status);
  } catch (error) {
    if (error instanceof TokenNeeded) {
      polling = false;
      needToken();
      return;
    }
    failures += 1;
    showAbsence();
  }
  polling = false;
  timer = setTimeout(poll, failures ? Math.min(MAX_INTERVAL, INTERVAL * 2 ** failures) : INTERVAL);
}

function verdict(kind, words) {
  const pill = $("verdict");
  text(pill, words);
  pill.className = `pill ${kind}`;
}

let noticed = "";

/** Shows notices; screen readers announce each one once. */
function notices(...all) {
  const words = JSON.stringify(all);
  if (words === noticed) return;
  noticed = words;
  $("notices").replaceChildren(
    ...all.map(([kind, title, more, code]) => h("div", { class: `notice ${kind}`, role: "status" }, h("b", {}, title), more, code && h("pre", {}, code))),
  );
}

function showVerdict(status) {
  const all = [];
  if (status.draining) all.push(["warn", "Draining.", "Requests in flight are answered; new connections are not accepted. The process is about to end."]);
  if (!status.configuration.ok) all.push(["bad", "The new configuration was refused.", "The previous configuration stays in effect.", status.configuration.error]);
  const refused = status.tenants.filter((tenant) => !tenant.credential_accepted).map((tenant) => tenant.id);
  if (refused.length) all.push(["bad", `Refold rejects the org key of ${refused.join(", ")}.`, "Requests that the cache can't answer fail with 502. Check the key, or set org_key_next."]);
  const open = status.tenants.filter((tenant) => tenant.circuit === "open").map((tenant) => tenant.id);
  if (open.length) all.push(["bad", `The circuit to Refold is open for ${open.join(", ")}.`, "Too many requests to Refold fail, so none are sent for a moment. The cache still answers."]);
  notices(...all);
  if (status.draining) verdict("warn", "Draining");
  else if (status.ready) verdict(all.length ? "warn" : "good", all.length ? "Ready, with a warning" : "Ready");
  else verdict("bad", "Not ready");
}

function showAbsence() {
  // A single failure is not reported.
  if (failures < 2) return;
  document.body.classList.add("asleep");
  verdict("bad", "No answer");
  notices(["bad", "The gateway does not answer.", "It may be restarting. This page keeps trying at growing intervals; the figures below are the last known ones."]);
}

function needToken() {
  const had = token.get();
  token.forget();
  if (!$("token").hidden) text($("token-wrong"), had ? "The token is wrong." : "");
  $("token").hidden = false;
  $("status").hidden = true;
  $("explore").hidden = true;
  $("config").hidden = true;
  $("raw").hidden = true;
  notices();
  verdict("", "Token needed");
  $("token-value").focus();
}

function hideToken() {
  if ($("token").hidden) return;
  $("token").hidden = true;
  text($("token-wrong"), "");
  view(false);
}

$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set($("token-value").value.trim());
  $("token-value").value = "";
  poll();
});

const VIEWS = ["status", "explore", "config"];

/** Shows the view that the URL names. */
function view(moved) {
  const wanted = VIEWS.find((name) => location.hash === `#${name}`) ?? "status";
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!$("token").hidden) return;
  for (const id of VIEWS) $(id).hidden = id !== wanted;
  if (wanted === "config") showConfig(needToken);
  if (moved) $(`${wanted}-title`).focus({ preventScroll: true });
}

const THEMES = { auto: "Auto", light: "Light", dark: "Dark" };

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  localStorage.setItem("postern-theme", name);
  text($("theme-name"), THEMES[name]);
  $("theme").setAttribute("aria-label", `Theme: ${THEMES[name]}`);
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const present = document.documentElement.dataset.theme ?? "auto";
  theme(names[(names.indexOf(present) + 1) % names.length]);
});

const remembered = localStorage.getItem("postern-theme");
theme(remembered in THEMES ? remembered : "auto");
addEventListener("hashchange", () => location.hash === "#main" || view(true));
document.addEventListener("visibilitychange", () => document.hidden || poll());
$("tenant").addEventListener("change", () => latest && show(latest));
start(needToken);
startPurge(needToken);
view(false);
poll();
