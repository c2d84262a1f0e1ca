// Helpers that make elements. Strings are set as text only, so data can't become markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

export const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Sets the text of an element if it differs: screen readers announce an unchanged text only once. */
export function text(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/**
 * A table. On a phone the style sheet shows each row as a card; the roles keep it a table for screen readers.
 * `columns`: [class, name]. A cell is a string, an element, an array of them, or `{ fixed: … }` for content that must not wrap.
 */
export function table(className, caption, columns, rows) {
  const cell = (value, at) => {
    const fixed = value != null && typeof value === "object" && "fixed" in value;
    return h("td", { role: "cell", class: `${columns[at][0]}${fixed ? " fixed" : ""}` }, fixed ? value.fixed : value);
  };
  const names = columns.map(([, name]) => h("th", { role: "columnheader", scope: "col" }, name));
  return h(
    "table",
    { class: className, role: "table" },
    h("caption", {}, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, names)),
    h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { role: "row" }, row.map(cell)))),
  );
}

/** A button that shows a short text and copies the whole one. */
export function copyable(whole, shown = whole) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(whole);
    } catch {
      // Without a clipboard (not a secure context) the text is shown and selected, to be copied by hand.
      button.textContent = whole;
      getSelection().selectAllChildren(button);
      return;
    }
    button.classList.add("done");
    text($("copied"), `${whole} copied`);
    setTimeout(() => button.classList.remove("done"), 1500);
  };
  const sheets = s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { class: "sheets", d: "M5.5 5.5h8v8h-8zM10.5 5V2.5h-8v8H5" }), s("path", { class: "tick", d: "M2.5 8.5l4 4 7-9" }));
  const button = h("button", { type: "button", class: "copy", title: `Copy ${cut(whole)}`, "aria-label": shown === "Copy" ? "Copy the command" : `${shown}, copy ${cut(whole)}`, "data-id": whole, on: { click: copy } }, shown, sheets);
  return button;
}

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const small = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/** Formats a count or rate; below 10 with one decimal. */
export const count = (value) => (value < 10 && value % 1 !== 0 ? small : number).format(value);

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${value < 10 && unit > 0 ? small.format(value) : number.format(value)} ${units[unit]}`;
}

export function microseconds(value) {
  if (value < 1000) return `${value < 10 ? small.format(value) : number.format(value)} µs`;
  if (value < 1e6) return `${value < 1e4 ? small.format(value / 1000) : number.format(value / 1000)} ms`;
  return `${small.format(value / 1e6)} s`;
}

/** Cuts a text that is too long to be shown. */
export const cut = (words, most = 120) => (words.length > most ? `${words.slice(0, most)}…` : words);

const shortTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const wholeTime = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "long" });

/** Shows in a `time` element when something was, by the clock of the wall, and how long before `at`. */
export function clock(at, secondsAgo, element) {
  const then = new Date(Date.parse(at) - secondsAgo * 1000);
  if (!element.firstChild) {
    element.append(h("span", {}, secondsAgo < 86400 ? shortTime.format(then) : then.toISOString().slice(0, 10)), h("span", { class: "muted small" }));
    element.setAttribute("datetime", then.toISOString());
    element.setAttribute("title", wholeTime.format(then));
  }
  text(element.lastChild, ago(secondsAgo));
  return element;
}

export function ago(seconds) {
  if (seconds < 1) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export function duration(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}
