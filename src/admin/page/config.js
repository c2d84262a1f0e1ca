// The configuration view: the configuration in effect, a card for each table of the file.

import { TokenNeeded, get } from "./api.js";
import { $, h } from "./dom.js";

export async function showConfig(needToken) {
  let config;
  try {
    config = await get("/config");
  } catch (error) {
    if (error instanceof TokenNeeded) needToken();
    else $("config-tables").replaceChildren(h("p", { class: "notice bad", role: "alert" }, h("b", {}, "The configuration can't be read."), error.message));
    return;
  }
  $("config-tables").replaceChildren(...Object.entries(config).flatMap(([name, value]) => tablesOf(name, value)));
}

const isTable = (value) => value != null && typeof value === "object" && !Array.isArray(value);

const isTables = (value) => Array.isArray(value) && value.length > 0 && value.every(isTable);

/** The cards of a setting: one for a table, one for each table of an array. */
function tablesOf(name, value) {
  if (isTables(value)) return value.flatMap((one) => cards(`[[${name}]]`, name, one));
  return isTable(value) ? cards(`[${name}]`, name, value) : [card(name, [[name, value]])];
}

/** The card of a table, and those of the arrays of tables in it. */
function cards(title, name, table) {
  const entries = Object.entries(table);
  const lists = entries.filter(([, value]) => isTables(value));
  const own = Object.fromEntries(entries.filter(([, value]) => !isTables(value)));
  return [card(title, settings(own, "")), ...lists.flatMap(([key, value]) => tablesOf(`${name}.${key}`, value))];
}

/** The settings of a table by their path. */
function settings(table, path) {
  return Object.entries(table).flatMap(([name, value]) => (isTable(value) && Object.keys(value).length ? settings(value, `${path}${name}.`) : [[path + name, value]]));
}

function card(title, entries) {
  const words = (value) => (value === null ? "not set" : typeof value === "string" ? value : JSON.stringify(value));
  return h(
    "article",
    { class: "card setting" },
    h("h2", {}, h("code", {}, title)),
    entries.length ? h("dl", { class: "keys" }, entries.flatMap(([name, value]) => [h("dt", {}, h("code", {}, name)), h("dd", {}, h("code", {}, words(value)))])) : h("p", { class: "empty" }, "Empty."),
  );
}
