// One study: the front, a point's layers, layers along the front, latencies, operators, progress, importance.
"use strict";
const trials = new Map(data.trials.map((trial) => [trial.number, trial]));
const onFront = new Set(data.front);
const titles = Object.fromEntries(data.axes.map((a) => [a.name, a.title]));
const techniques = { 0: "share of zeros", 2: "bits", 3: "clusters", channels: "channels kept" };
const groups = [...new Set(data.trials.flatMap((trial) => Object.keys(trial.channels)))]; // that lose channels somewhere
let chosen = null;

function summary(trial) {
  const lines = [trial === data.baseline ? "float network" : `trial ${trial.number}`, trial.summary];
  for (const { name, title } of data.axes) {
    const ends = name === "accuracy" ? trial.accuracy_ci : name === "latency_ms" ? trial.latency_ci_ms : null;
    lines.push(`${title}: ${number(trial[name])}${between(ends)}`);
  }
  if (trial.test_accuracy !== null) lines.push(`test: ${number(trial.test_accuracy)}${between(trial.test_ci)}`);
  return lines;
}

function shown() {
  const bound = byId("bound").value === "" ? null : Number(byId("bound").value);
  const words = byId("contains").value.trim().toLowerCase();
  const met = (value) => bound === null || (data.higher_is_better ? value >= bound : value <= bound);
  return data.trials.filter((t) => met(t.accuracy) && (!byId("only-front").checked || onFront.has(t.number))
    && (words === "" || t.summary.toLowerCase().includes(words) || t.activations.includes(words)));
}

// The colour scale stands in each trace: in a legend, plotly.js 4.1 forgets one that traces share.
function points(rows, name, symbol, size, colour, scale, withBar) {
  const [x, y] = [byId("x").value, byId("y").value];
  return {
    type: "scatter", mode: "markers", name, x: rows.map((t) => t[x]), y: rows.map((t) => t[y]),
    customdata: rows.map((t) => t.number ?? -1), text: rows.map((t) => summary(t).map(esc).join("<br>")), hoverinfo: "text",
    marker: { symbol, size, line: { width: 1, color: shade("--text") }, ...(scale
      ? { color: rows.map((t) => t[colour]), colorscale: "Cividis", cmin: scale[0], cmax: scale[1], showscale: withBar, colorbar: bar(titles[colour]) }
      : { color: shade("--front") }) },
  };
}

function drawFront() {
  const rows = shown(), [x, y, colour] = ["x", "y", "colour"].map((id) => byId(id).value);
  const front = rows.filter((t) => onFront.has(t.number)), others = rows.filter((t) => !onFront.has(t.number));
  const marked = trials.get(chosen), known = data.trials.map((t) => t[colour]).filter((value) => value !== null);
  const scale = [Math.min(...known), Math.max(...known)];
  draw("pareto", () => {
    const traces = [points(others, "other trials", "circle", 7, colour, scale, front.length === 0), points(front, "front", "diamond", 12, colour, scale, true),
      points(byId("with-float").checked ? [data.baseline] : [], "float network", "star", 14, colour, null)];
    if (marked && rows.includes(marked)) {
      traces.push({ type: "scatter", mode: "markers", name: "chosen", showlegend: false, x: [marked[x]], y: [marked[y]], hoverinfo: "skip",
        marker: { symbol: "circle-open", size: 24, line: { width: 3 }, color: shade("--accent") } });
    }
    return { traces, layout: { xaxis: axis(titles[x]), yaxis: axis(titles[y]) } };
  });
  byId("shown").textContent = `${rows.length} of ${data.trials.length} complete trials shown, ${front.length} of them on the front.`;
}

function listTrials() {
  const picked = Object.entries(data.picks).reduce((all, [name, n]) => all.set(n, [...(all.get(n) ?? []), name]), new Map());
  const rank = new Map(data.front.map((n, k) => [n, k]));
  const rows = shown().sort((a, b) => (rank.get(a.number) ?? 1e9) - (rank.get(b.number) ?? 1e9) || a.number - b.number);
  const columns = [
    { title: "trial", value: (t) => t.number, cell: (t) => element("button", {
      type: "button", "data-trial": t.number, "aria-label": `Show the layers of trial ${t.number}`, onclick: () => choose(t.number, true) }, t.number) },
    { title: "on the front", value: (t) => rank.get(t.number) ?? null,
      text: (t) => (onFront.has(t.number) ? ["yes", ...(picked.get(t.number) ?? [])].join(", ") : "no") + (t.feasible ? "" : ", misses a constraint") },
    ...data.axes.map(({ name, title }) => ({ title, value: (t) => t[name],
      text: (t) => number(t[name]) + between(name === "accuracy" ? t.accuracy_ci : name === "latency_ms" ? t.latency_ci_ms : null) })),
    { title: "on test data", value: (t) => t.test_accuracy, text: (t) => number(t.test_accuracy) + between(t.test_ci) },
    { title: "latency is", value: (t) => t.latency_words, text: (t) => t.latency_words },
    { title: "configuration", value: (t) => t.summary, text: (t) => t.summary },
  ];
  table(byId("trials"), "Complete trials, the front first", columns, rows, (t) => ({
    class: onFront.has(t.number) ? "front" : null, "aria-current": t.number === chosen ? "true" : null }));
}

function choose(n, move) {
  const trial = trials.get(n);
  if (!trial) return;
  chosen = n;
  byId("point-h").textContent = `Layers of trial ${n}`;
  const rows = data.layers.map((layer, k) => [layer, ...data.choices[trial.layers[k]], trial.kernels?.[layer] ?? "not known"]);
  const place = element("div");
  table(place, `Layer choices of trial ${n}; activations ${trial.activations}`, [
    { title: "layer", value: (r) => r[0], text: (r) => r[0] },
    { title: "share of zeros", value: (r) => r[1] },
    { title: "granularity", value: (r) => r[2], text: (r) => (r[1] > 0 ? r[2] : "-") },
    { title: "bits", value: (r) => r[3] },
    { title: "clusters", value: (r) => r[4], text: (r) => (r[4] === null ? "all levels" : number(r[4])) },
    ...(trial.kernels ? [{ title: "runs on", value: (r) => r[5], text: (r) => r[5] }] : []),
  ], rows);
  const widths = element("div");
  if (groups.length > 0) {
    table(widths, `Channels that groups keep in trial ${n}`, [
      { title: "group", value: (name) => name, text: (name) => name },
      { title: "channels", value: (name) => trial.channels[name] ?? null, text: (name) => (name in trial.channels ? number(trial.channels[name]) : "all") },
    ], groups);
  }
  byId("point-body").replaceChildren(...summary(trial).slice(1).map((line) => element("p", {}, line)),
    element("p", { class: "soft" }, `Latency is ${trial.latency_words}. SHA-256 of the file: ${trial.sha256}`), place, widths,
    element("p", {}, "To have its files:"), element("pre", { tabindex: "0" }, `${data.export} ${n}`));
  document.querySelectorAll("#trials tr[aria-current]").forEach((row) => row.removeAttribute("aria-current"));
  document.querySelector(`#trials button[data-trial="${n}"]`)?.closest("tr").setAttribute("aria-current", "true");
  drawFront();
  if (move) byId("point-h").focus();
}

function drawHeat() {
  const what = byId("technique").value, rows = data.front.map((n) => trials.get(n));
  const lines = what === "channels" ? groups : data.layers;
  const cell = what === "channels" ? (t, k) => t.channels[groups[k]] ?? null : (t, k) => data.choices[t.layers[k]][what];
  const z = lines.map((_, k) => rows.map((t) => cell(t, k)));
  const names = rows.map((t) => `trial ${t.number}`), places = rows.map((_, k) => k);
  byId("heatmap").style.height = `${Math.max(16, 6 + 1.5 * lines.length)}rem`;
  draw("heatmap", () => ({
    traces: [{ type: "heatmap", z, x: places, y: lines.map((_, k) => k), xgap: 1, ygap: 1, colorscale: what === "0" ? "Cividis" : "Viridis",
      zmin: what === "0" ? 0 : undefined, zmax: what === "0" ? 1 : undefined, hoverongaps: false, hoverinfo: "text",
      text: lines.map((layer, k) => rows.map((t) => `${esc(layer)}<br>trial ${t.number}: ${number(cell(t, k))} ${techniques[what]}`)),
      colorbar: bar(techniques[what]) }],
    layout: { xaxis: axis("the front, best metric first", { tickvals: places, ticktext: names, tickangle: -90, showgrid: false, zeroline: false }),
      yaxis: axis("", { tickvals: lines.map((_, k) => k), ticktext: lines.map(esc), autorange: "reversed", showgrid: false, zeroline: false }) },
  }));
  table(byId("heat-table"), `${techniques[what]} of each ${what === "channels" ? "group" : "layer"} along the front`, [
    { title: what === "channels" ? "group" : "layer", value: (k) => k, text: (k) => lines[k] },
    ...rows.map((t) => ({ title: `trial ${t.number}`, value: (k) => cell(t, k) })),
  ], lines.map((_, k) => k));
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b), half = sorted.length / 2;
  return (sorted[Math.floor(half - 0.5)] + sorted[Math.floor(half)]) / 2;
}

function drawLatency() {
  const names = ["baseline", ...data.front.map(String)].filter((name) => data.samples[name]);
  if (names.length === 0) {
    byId("latency-body").replaceChildren(element("p", {},
      "No latency of the float network or the front was measured: the latencies of this study are modelled, so there are no samples to show."));
    return;
  }
  const label = (name) => (name === "baseline" ? "float" : `trial ${name}`);
  byId("latency-body").replaceChildren(
    element("figure", {}, element("div", { id: "boxes", class: "plot", role: "img", "aria-label": "Box plots of measured latencies; the table below holds their figures" }),
      element("figcaption", {}, "Measured samples of all processes as stored (every k-th, at most 200 a process). Files that run the same kernels share their measurement. Dots: the median of each process.")),
    element("div", { id: "latency-table" }));
  draw("boxes", () => ({
    traces: [...names.map((name) => ({ type: "box", name: label(name), y: data.samples[name].flat(), boxpoints: "outliers", marker: { color: shade("--accent"), size: 3 }, showlegend: false })),
      { type: "scatter", mode: "markers", name: "median of a process", x: names.flatMap((n) => data.samples[n].map(() => label(n))),
        y: names.flatMap((n) => data.samples[n].map(median)), marker: { color: shade("--front"), size: 7 } }],
    layout: { yaxis: axis("latency, ms (logarithmic)", { type: "log" }), xaxis: axis("") },
  }));
  table(byId("latency-table"), "Measured latency, ms", [
    { title: "file", value: (n) => n, text: label },
    { title: "processes", value: (n) => data.samples[n].length },
    { title: "samples stored", value: (n) => data.samples[n].flat().length },
    { title: "median of the processes' medians", value: (n) => median(data.samples[n].map(median)) },
    { title: "lowest", value: (n) => Math.min(...data.samples[n].flat()) },
    { title: "highest", value: (n) => Math.max(...data.samples[n].flat()) },
  ], names);
}

function drawOps() {
  const place = byId("ops-body");
  if (data.ops.length === 0) {
    place.replaceChildren(element("p", {}, "A search measures no single operators. Measure a file of this study, and give the document to the report:"),
      element("pre", { tabindex: "0" }, "autocompress measure RUNS/STUDY/artifacts/SHA256.tflite --device local --json > ops.json\nautocompress report STUDY --html report.html --ops ops.json"));
    return;
  }
  place.replaceChildren();
  data.ops.forEach((found, k) => {
    place.append(element("h3", {}, `${found.of}, measured on ${found.device} (${found.runtime} ${found.runtime_version ?? ""})`));
    if (found.ops_note) place.append(element("p", {}, found.ops_note));
    if (!found.ops) return;
    const name = (op) => `${op.index} ${op.layer ?? op.op ?? op.kernel}`;
    place.append(element("div", { id: `ops-${k}`, class: "plot", role: "img", "aria-label": "Bars: time of each operator; the table below holds the same values" }), element("div", { id: `ops-table-${k}` }));
    draw(`ops-${k}`, () => ({
      traces: [{ type: "bar", orientation: "h", x: found.ops.map((op) => op.mean_us), y: found.ops.map((_, n) => n), marker: { color: shade("--accent") },
        text: found.ops.map((op) => esc(op.kernel)), hoverinfo: "x+text", textposition: "none" }],
      layout: { xaxis: axis("mean time, µs"), yaxis: axis("", { tickvals: found.ops.map((_, n) => n), ticktext: found.ops.map((op) => esc(name(op))), autorange: "reversed" }) },
    }));
    table(byId(`ops-table-${k}`), `Operators of ${found.of} in the order they ran`, [
      { title: "operator", value: name, text: name }, { title: "kernel", value: (op) => op.kernel, text: (op) => op.kernel },
      { title: "median, µs", value: (op) => op.median_us }, { title: "mean, µs", value: (op) => op.mean_us }, { title: "share", value: (op) => op.share, text: (op) => number(op.share, 3) },
    ], found.ops);
  });
}

function drawVolume() {
  const time = byId("over").value === "time", steps = data.hypervolume.filter((s) => !time || s.finished_s !== null);
  draw("volume", () => ({
    traces: [{ type: "scatter", mode: "lines+markers", line: { shape: "hv", color: shade("--accent") }, x: steps.map((s) => (time ? new Date(1000 * s.finished_s) : s.number)),
      y: steps.map((s) => s.hypervolume), name: "hypervolume" }],
    layout: { xaxis: axis(time ? "time (UTC)" : "trial"), yaxis: axis("hypervolume", { rangemode: "tozero" }), showlegend: false },
  }));
  table(byId("volume-table"), "Hypervolume after each trial that changed the front, and after the last", [
    { title: "trial", value: (s) => s.number }, { title: "finished (UTC)", value: (s) => s.finished_s, text: (s) => when(s.finished_s) },
    { title: "hypervolume", value: (s) => s.hypervolume },
  ], data.hypervolume);
}

function drawImportance() {
  const place = byId("importance-body"), rows = data.importance;
  if (rows.length === 0) {
    place.replaceChildren(element("p", {}, "Not known: only the guided sampler makes the layer tables that this is predicted from."));
    return;
  }
  place.replaceChildren(
    element("figure", {}, element("div", { id: "bargains", class: "plot", role: "img", "aria-label": "Bytes saved and metric lost by each technique in each layer; the table below holds the same values" }),
      element("figcaption", {}, "Predicted, not measured: at the knee, against the same layer without the technique, or the whole group of channels (hollow: the next narrower width, against the knee). Far right and low is a good bargain.")),
    element("div", { id: "importance-table" }));
  const symbols = { sparsity: "circle", bits: "square", clusters: "triangle-up", channels: "diamond" };
  const colours = { sparsity: "--accent", bits: "--front", clusters: "--soft", channels: "--text" };
  const amount = (r) => (r.of === null ? number(r.value) : `${number(r.value)} of ${number(r.of)}`);
  const latency = (r) => (r.saves_latency_ms === null ? "" : `<br>and ${number(r.saves_latency_ms)} ms`);
  draw("bargains", () => ({
    traces: Object.keys(symbols).map((what) => {
      const some = rows.filter((r) => r.technique === what);
      return { type: "scatter", mode: "markers", name: what, x: some.map((r) => r.saves_bytes), y: some.map((r) => r.costs), hoverinfo: "text",
        text: some.map((r) => `${esc(r.layer)}<br>${what} ${amount(r)}${r.used ? "" : " (next)"}<br>saves ${number(Math.round(r.saves_bytes))} bytes${latency(r)}<br>costs ${number(r.costs)}`),
        marker: { symbol: some.map((r) => symbols[what] + (r.used ? "" : "-open")), size: 11, color: shade(colours[what]) } };
    }).filter((trace) => trace.x.length > 0),
    layout: { xaxis: axis("bytes of the download that it saves (predicted)"), yaxis: axis("what it costs of the metric (predicted)") },
  }));
  table(byId("importance-table"), "Predicted savings and costs at the knee", [
    { title: "layer", value: (r) => r.layer, text: (r) => r.layer }, { title: "technique", value: (r) => r.technique, text: (r) => r.technique },
    { title: "value", value: (r) => r.value, text: (r) => amount(r) + (r.used ? "" : " (next)") },
    { title: "saves, bytes", value: (r) => Math.round(r.saves_bytes) }, { title: "saves, ms", value: (r) => r.saves_latency_ms },
    { title: "costs of the metric", value: (r) => r.costs }, { title: "sensitivity by tables", value: (r) => r.table_sensitivity },
    { title: "sensitivity after trials", value: (r) => r.sensitivity }, { title: "trials with it", value: (r) => r.trials },
  ], rows);
}

function start() {
  const pairs = data.axes.map((a) => [a.name, a.title]), has = (name, k) => (titles[name] ? name : pairs[k % pairs.length][0]);
  if (pairs.length > 0) {
    options(byId("x"), pairs, has("download_bytes", 0));
    options(byId("y"), pairs, has("accuracy", 1));
    options(byId("colour"), pairs, has("latency_ms", 2));
    // Networks that no longer work would stretch the axes: what loses more than the hypervolume counts is left out at first.
    byId("bound-name").textContent = `${titles.accuracy ?? "metric"}, at ${data.higher_is_better ? "least" : "most"}`;
    byId("bound").value = number(data.baseline.accuracy + (data.higher_is_better ? -0.1 : 0.1), 3);
    const again = () => { drawFront(); listTrials(); };
    byId("controls").addEventListener("input", again);
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
    listTrials();
    choose(data.picks.knee ?? data.trials[0]?.number, false);
    byId("pareto").on("plotly_click", (event) => choose(event.points[0].customdata, false));
    if (groups.length > 0) byId("technique").append(element("option", { value: "channels" }, "channels kept by a group"));
    byId("technique").addEventListener("input", drawHeat);
    drawHeat();
  }
  byId("over").addEventListener("input", drawVolume);
  drawVolume();
  drawLatency();
  drawOps();
  drawImportance();
  document.documentElement.dataset.ready = "true";
}
start();
