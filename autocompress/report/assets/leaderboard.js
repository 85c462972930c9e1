// All studies: groups, the best by constraint, the common front, how the studies rank, progress.
"use strict";
const titles = { accuracy: "validation metric", latency_ms: "latency, ms", download_bytes: "download, KB", file_bytes: "file, KB" };
let group = data.groups[0];
const digits = (value) => (value && Math.abs(value) < 0.0005 ? String(Number(value.toPrecision(2))) : value.toFixed(4));
const signed = (value) => (value >= 0 ? "+" : "") + digits(value);
const times = (value) => (value === null || value === undefined ? "-" : `×${value.toFixed(2)}`);
const kilobytes = (value) => (value === null || value === undefined ? "-" : number(value / 1000, 3));
// What a chart draws and a table says of a value: sizes in KB of 1,000 bytes.
const drawn = (point, key) => (point[key] === null || point[key] === undefined ? null : key.endsWith("_bytes") ? point[key] / 1000 : point[key]);
const name = (point) => `${point.study}, trial ${point.trial}`;
const title = (key) => (key === "accuracy" ? `validation ${group.metric}` : key === "latency_ms" ? (group.latency === "none" ? "latency, not known" : `latency, ms (${group.latency})`) : titles[key]);

const pointColumns = () => [
  { title: "study, trial", value: name, text: name },
  { title: title("accuracy"), value: (p) => p.accuracy, text: (p) => `${number(p.accuracy)} (${signed(p.to_float.accuracy)})` },
  { title: "on test data", value: (p) => p.test_accuracy, text: (p) => number(p.test_accuracy) + between(p.test_ci) },
  { title: title("latency_ms"), value: (p) => p.latency_ms, text: (p) => (p.latency_ms === null ? "-" : `${number(p.latency_ms)} (${times(p.to_float.latency)}), ${p.latency_is}`) },
  { title: "download, KB", value: (p) => p.download_bytes, text: (p) => `${kilobytes(p.download_bytes)} (${times(p.to_float.download)})` },
  { title: "file, KB", value: (p) => p.file_bytes, text: (p) => kilobytes(p.file_bytes) },
  { title: "against plain int8", value: (p) => p.to_int8?.download ?? null,
    text: (p) => (p.to_int8 ? `${signed(p.to_int8.accuracy)} · ${times(p.to_int8.latency)} latency · ${times(p.to_int8.download)} download` : "not tried") },
  { title: "configuration", value: (p) => p.summary, text: (p) => p.summary },
];

function listGroups() {
  const best = (g, wanted) => g.best.find((b) => b.wanted === wanted)?.point ?? null;
  const short = (p, key) => (p && p[key] !== null ? `${number(drawn(p, key))} (${times(p.to_float[key === "latency_ms" ? "latency" : "download"])})${key === "latency_ms" && p.extrapolated ? `, ${p.latency_is}` : ""}` : "none");
  table(byId("groups"), "Groups; the best of the first constraint of each", [
    { title: "task and device", value: (g) => g.title, cell: (g) => element("button", {
      type: "button", "data-group": data.groups.indexOf(g), onclick: () => choose(g, true) }, g.title) },
    { title: "studies", value: (g) => g.studies.length },
    { title: "on the front", value: (g) => g.front.length },
    { title: "constraint", value: (g) => g.best[0]?.constraint ?? "-", text: (g) => g.best[0]?.constraint ?? "-" },
    { title: "smallest download, KB", value: (g) => best(g, "smallest")?.download_bytes ?? null, text: (g) => short(best(g, "smallest"), "download_bytes") },
    { title: "fastest, ms", value: (g) => best(g, "fastest")?.latency_ms ?? null, text: (g) => short(best(g, "fastest"), "latency_ms") },
    { title: "network", value: (g) => g.network, text: (g) => g.network.slice(0, 12) },
  ], data.groups, (g) => ({ "aria-current": g === group ? "true" : null }));
}

function marks(points, label, symbol, size, shadeName) {
  const [x, y] = [byId("x").value, byId("y").value];
  return { type: "scatter", mode: "markers", name: label, x: points.map((p) => drawn(p, x)), y: points.map((p) => drawn(p, y)), hoverinfo: "text", customdata: points.map(name),
    text: points.map((p) => [name(p), p.summary, ...Object.keys(titles).map((key) => `${title(key)}: ${number(drawn(p, key))}`)].filter(Boolean).map(esc).join("<br>")),
    marker: { symbol, size, color: shade(shadeName), line: { width: 1, color: shade("--text") } } };
}

// The float network and plain int8 of the studies that are shown, one mark each where they are the same.
function references(kind, mine) {
  const found = group.studies.filter((s) => mine({ study: s.study }) && s[kind]).map((s) => ({ ...s[kind], study: s.study, trial: kind, summary: kind === "float" ? "float network" : "plain int8" }));
  return [...new Map(found.map((p) => [Object.keys(titles).map((key) => p[key]).join(), p])).values()];
}

// The steps of the front in the two values that are shown: what no other of the points beats in both.
function frontLine(points) {
  const [x, y] = [byId("x").value, byId("y").value];
  const sign = (key) => (key === "accuracy" && group.higher_is_better ? -1 : 1);
  const order = points.filter((p) => drawn(p, x) !== null && drawn(p, y) !== null)
    .sort((a, b) => sign(x) * (a[x] - b[x]) || sign(y) * (a[y] - b[y]));
  let best = Infinity;
  const kept = order.filter((p) => sign(y) * p[y] < best && ((best = sign(y) * p[y]), true));
  return { type: "scatter", mode: "lines", name: "front", showlegend: false, hoverinfo: "skip", x: kept.map((p) => drawn(p, x)), y: kept.map((p) => drawn(p, y)),
    line: { shape: "hv", width: 2, color: shade("--accent") } };
}

// An axis that one outlier does not flatten: logarithmic where positive values spread beyond ten times; else what lies
// further out than three times the middle half of the values is left beyond the edge. `beyond`: how many those are.
function fitted(key, points) {
  const values = points.map((p) => drawn(p, key)).filter((value) => value !== null).sort((a, b) => a - b);
  const [low, high] = [values[0], values[values.length - 1]];
  if (key !== "accuracy" && low > 0 && high > 10 * low) return { beyond: 0, more: { type: "log" } };
  const at = (share) => values[Math.round(share * (values.length - 1))], reach = 3 * (at(0.75) - at(0.25));
  const inside = values.filter((value) => reach === 0 || (value >= at(0.25) - reach && value <= at(0.75) + reach));
  if (inside.length === values.length) return { beyond: 0, more: {} };
  const pad = 0.05 * (inside[inside.length - 1] - inside[0]);
  return { beyond: values.length - inside.length, more: { range: [inside[0] - pad, inside[inside.length - 1] + pad], autorange: false } };
}

function drawFront() {
  const only = byId("only").value, mine = (p) => only === "" || p.study === only;
  const [front, others] = [group.front.filter(mine), group.others.filter(mine)];
  const [whole, int8] = [references("float", mine), references("int8", mine)];
  const [x, y] = ["x", "y"].map((id) => fitted(byId(id).value, [...front, ...others, ...whole, ...int8]));
  byId("beyond").textContent = x.beyond + y.beyond ? ` ${x.beyond + y.beyond} lie beyond the edge: a double click shows all.` : "";
  draw("pareto", () => ({
    traces: [marks(others, "front of one study", "circle", 6, "--soft"), marks(front, "common front", "diamond", 11, "--accent"),
      marks(whole, "float network", "star", 14, "--text"), marks(int8, "plain int8", "square", 10, "--text"), frontLine(front)],
    layout: { xaxis: axis(title(byId("x").value), x.more), yaxis: axis(title(byId("y").value), y.more) },
  }));
  table(byId("front-table"), "The common front, best metric first", pointColumns(), group.front.filter(mine));
}

function listStudies() {
  const reference = (r) => (r ? [number(r.accuracy), r.latency_ms === null ? null : `${number(r.latency_ms)} ms`, `${kilobytes(r.download_bytes)} KB`].filter(Boolean).join(" · ") : "not tried");
  table(byId("studies-table"), "Studies by hypervolume", [
    { title: "rank", value: (s) => s.rank }, { title: "study", value: (s) => s.study, text: (s) => s.study },
    { title: "hypervolume", value: (s) => s.hypervolume }, { title: "points on the common front", value: (s) => s.on_front },
    { title: "complete trials", value: (s) => s.complete_trials, text: (s) => `${s.complete_trials} of ${s.trials}` },
    { title: "float network", value: (s) => s.float.accuracy, text: (s) => reference(s.float) },
    { title: "plain int8", value: (s) => s.int8?.accuracy ?? null, text: (s) => reference(s.int8) },
    { title: "searched by", value: (s) => s.by.join(", "), text: (s) => `${s.by.join(", ") || "unknown"} (${s.starts} starts)` },
    { title: "first start, last trial (UTC)", value: (s) => s.last, text: (s) => `${s.started ?? "-"}, ${s.last ?? "-"}` },
    { title: "space, sampler, seed", value: (s) => s.space, text: (s) => `${s.space}, ${s.sampler}, ${s.seed}` },
    { title: "constraints", value: (s) => s.constraints.join(", "), text: (s) => s.constraints.join(", ") || "none" },
    { title: "versions", value: (s) => s.versions.autocompress ?? "", text: (s) => Object.entries(s.versions).map(([k, v]) => `${k} ${v}`).join(", ") },
  ], group.studies);
}

function drawVolume() {
  const time = byId("over").value === "time";
  draw("volume", () => {
    const traces = group.studies.map((s) => {
      const steps = s.steps.filter((step) => !time || step.finished_s !== null);
      return { type: "scatter", mode: "lines", name: s.study, showlegend: false, hoverinfo: "text", text: steps.map((step) => `${esc(s.study)}: ${number(step.hypervolume)}`),
        line: { shape: "hv", width: 1, color: shade("--soft") }, x: steps.map((step) => (time ? new Date(1000 * step.finished_s) : step.number)), y: steps.map((step) => step.hypervolume) };
    });
    if (time) {
      traces.push({ type: "scatter", mode: "lines+markers", name: "all together", x: group.nights.map((n) => new Date(1000 * n.finished_s)), y: group.nights.map((n) => n.hypervolume),
        line: { shape: "hv", width: 3, color: shade("--accent") } });
    }
    return { traces, layout: { xaxis: axis(time ? "time (UTC)" : "trial"), yaxis: axis("hypervolume", { rangemode: "tozero" }) } };
  });
  table(byId("nights-table"), "All studies together by day (UTC)", [
    { title: "day", value: (n) => n.day, text: (n) => n.day }, { title: "hypervolume", value: (n) => n.hypervolume }, { title: "complete trials", value: (n) => n.trials },
  ], group.nights);
}

function choose(chosen, move) {
  group = chosen;
  byId("best-h").textContent = `Best by constraint: ${group.title}`;
  document.querySelectorAll("#groups tr[aria-current]").forEach((row) => row.removeAttribute("aria-current"));
  document.querySelector(`#groups button[data-group="${data.groups.indexOf(group)}"]`)?.closest("tr").setAttribute("aria-current", "true");
  const keys = Object.keys(titles), [x, y] = [byId("x").value || "download_bytes", byId("y").value || "accuracy"];
  options(byId("x"), keys.map((key) => [key, title(key)]), x);
  options(byId("y"), keys.map((key) => [key, title(key)]), y);
  options(byId("only"), [["", "all studies"], ...group.studies.map((s) => [s.study, s.study])], "");
  const columns = pointColumns().map((column) => ({ title: column.title, value: (b) => (b.point ? column.value(b.point) : null), text: (b) => (b.point ? column.text?.(b.point) ?? number(column.value(b.point)) : "-") }));
  table(byId("best-table"), "The best that meets each constraint", [
    { title: "constraint", value: (b) => b.constraint, text: (b) => b.constraint }, { title: "wanted", value: (b) => b.wanted, text: (b) => (b.point ? b.wanted : `${b.wanted}: none meets it`) }, ...columns,
  ], group.best);
  drawFront();
  listStudies();
  if (move) byId("best-h").focus();
  later(drawVolume);
}

// What lies below the first screen waits until the page can be used.
function later(task) {
  setTimeout(task, 0);
}

function start() {
  if (group) {
    listGroups();
    choose(group, false);
    byId("controls").addEventListener("input", drawFront);
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    byId("over").addEventListener("input", drawVolume);
  }
  window.readyAfterMs = performance.now();
  document.documentElement.dataset.ready = "true";
}
start();
