// What the pages share: elements made of text, tables, and Plotly in the colours of the page.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
// Plotly reads tags and entities in its texts: what a user named must arrive as text there too.
const esc = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const redraws = new Map();

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

function number(value, digits = 4) {
  if (value === null || value === undefined) return "-";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

const between = (ends) => (ends ? ` [${number(ends[0])}, ${number(ends[1])}]` : "");
const when = (seconds) => (seconds === null ? "-" : new Date(1000 * seconds).toISOString().slice(0, 16).replace("T", " "));

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => element("option", { value }, text)));
  if (chosen !== undefined) select.value = chosen;
}

// columns: [{title, value(row), text(row)?, cell(row)?}]; a click on a title sorts by it.
function table(place, caption, columns, rows, mark = () => ({})) {
  let sorted = null, falls = false;
  function body() {
    const order = [...rows];
    if (sorted !== null) {
      const key = (row) => columns[sorted].value(row);
      order.sort((a, b) => compare(key(a), key(b)) * (falls ? -1 : 1));
    }
    return element("tbody", {}, ...order.map((row) => element("tr", mark(row), ...columns.map((column) =>
      element("td", { class: typeof column.value(row) === "number" ? "number" : null }, column.cell ? column.cell(row) : column.text ? column.text(row) : number(column.value(row)))))));
  }
  function show() {
    const heads = columns.map((column, k) => element("th", {
      scope: "col", "aria-sort": k === sorted ? (falls ? "descending" : "ascending") : null,
    }, element("button", { type: "button", onclick: () => sort(k) }, column.title)));
    const made = element("table", {}, element("caption", {}, caption), element("thead", {}, element("tr", {}, ...heads)), body());
    place.replaceChildren(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, made));
  }
  function sort(k) {
    falls = sorted === k && !falls;
    sorted = k;
    show();
    place.querySelectorAll("th button")[k].focus();
  }
  show();
}

function compare(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
  if (b === null || b === undefined) return -1;
  return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
}

function axis(title, more = {}) {
  return { title: { text: esc(title), standoff: 8 }, gridcolor: shade("--grid"), zerolinecolor: shade("--line"), linecolor: shade("--line"),
    automargin: true, ...more };
}

// A colour bar beside the chart, below it where there is little room.
function bar(title) {
  const narrow = window.innerWidth < 640;
  return { title: { text: esc(title), side: narrow ? "top" : "right" }, thickness: 12, outlinewidth: 0,
    ...(narrow ? { orientation: "h", y: -0.25, yanchor: "top", len: 1 } : {}) };
}

// Draw now, and again whenever the colour scheme changes. `build` gives {traces, layout}.
function draw(id, build) {
  const again = () => {
    const { traces, layout } = build();
    const narrow = window.innerWidth < 640;
    const whole = {
      paper_bgcolor: shade("--back"), plot_bgcolor: shade("--back"), font: { color: shade("--text"), size: narrow ? 11 : 13, family: "system-ui, DejaVu Sans, sans-serif" },
      margin: { l: 50, r: 16, t: 16, b: 50 }, hovermode: "closest", dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
      hoverlabel: { bgcolor: shade("--panel"), bordercolor: shade("--line"), font: { color: shade("--text") }, align: "left" },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, ...layout,
    };
    return Plotly.react(id, traces, whole, { responsive: true, displaylogo: false, displayModeBar: narrow ? false : "hover" });
  };
  redraws.set(id, again);
  return again();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraws.forEach((again) => again()));
