"use strict";
/* The page of a report: it decodes the cube, counts what is selected, and shows it.
 *
 * Vega draws map, timeline and treemap, from the specifications that the page brings along. All
 * that comes from the catalog is data: it becomes text of the document, never markup or code. */

const page = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = new Intl.NumberFormat("en");

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function bytesInWords(count) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  let power = 0;
  while (count >= 1023.95 && power < units.length - 1) { count /= 1024; power += 1; }
  return `${power ? count.toFixed(1) : number.format(count)} ${units[power]}`;
}

/* The cube: columns of numbers, stored as planes of bytes, the lowest first, and deflated. */

async function inflated(text) {
  const packed = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function columnsOf(bytes, planes, rows) {
  let at = 0;
  return planes.map((count) => {
    const column = count > 4 ? new Float64Array(rows) : new Uint32Array(rows);
    for (let plane = 0, weight = 1; plane < count; plane += 1, weight *= 256) {
      for (let row = 0; row < rows; row += 1) column[row] += weight * bytes[at + row];
      at += rows;
    }
    return column;
  });
}

class Cube {
  constructor(columns, dimensions) {
    this.dimensions = dimensions;
    this.codes = columns.slice(0, dimensions.length);
    [this.files, this.bytes] = columns.slice(dimensions.length);
    this.rows = this.files.length;
    this.failing = new Uint32Array(this.rows); // one bit for each dimension whose filter fails
  }

  /* Let only rows pass whose bucket in a dimension is wanted; null: all. */
  filter(index, wanted) {
    const bit = 1 << index, codes = this.codes[index], failing = this.failing;
    for (let row = 0; row < this.rows; row += 1) {
      if (wanted && !wanted[codes[row]]) failing[row] |= bit;
      else failing[row] &= ~bit;
    }
  }

  /* Return files and bytes of each bucket of a dimension, under the filters of all others. */
  totals(index) {
    const others = ~(1 << index), codes = this.codes[index];
    const count = this.dimensions[index].labels.length;
    const files = new Float64Array(count), bytes = new Float64Array(count);
    for (let row = 0; row < this.rows; row += 1) {
      if (this.failing[row] & others) continue;
      files[codes[row]] += this.files[row];
      bytes[codes[row]] += this.bytes[row];
    }
    return { files, bytes };
  }

  /* Return files and bytes of all rows, or of those that pass all filters. */
  sum(selected) {
    let files = 0, bytes = 0;
    for (let row = 0; row < this.rows; row += 1) {
      if (selected && this.failing[row]) continue;
      files += this.files[row];
      bytes += this.bytes[row];
    }
    return { files, bytes };
  }
}

/* A dimension shows values. Mostly they are its buckets; a bucket of COG problems has several. */

function valuesOf(dimension, totals) {
  const members = dimension.members;
  if (!members) return totals;
  const files = new Float64Array(dimension.values.length), bytes = new Float64Array(files.length);
  members.forEach((some, bucket) => some.forEach((value) => {
    files[value] += totals.files[bucket];
    bytes[value] += totals.bytes[bucket];
  }));
  return { files, bytes };
}

const report = {
  measure: "files",
  chosen: {}, // a set of values for each dimension
  views: {},
  folder: 0, // the folder that the treemap shows
};

const dimensionOf = (name) => page.dimensions[report.index[name]];
const valueNames = (name) => dimensionOf(name).values || dimensionOf(name).labels;
const shownMeasure = (files, bytes) => (report.measure === "files" ? files : bytes);
const inWords = (value) => (report.measure === "files" ? number.format(value) : bytesInWords(value));

function wantedBuckets(name) {
  const chosen = report.chosen[name], dimension = dimensionOf(name);
  if (!chosen || !chosen.size) return null;
  return dimension.labels.map((_, bucket) => {
    if (name === "folder") return [...chosen].some((folder) => isBelow(bucket, folder));
    if (dimension.members) return dimension.members[bucket].some((value) => chosen.has(value));
    return chosen.has(bucket);
  });
}

function isBelow(folder, other) {
  const parents = dimensionOf("folder").parents;
  while (folder >= 0 && folder !== other) folder = parents[folder];
  return folder === other;
}

function choose(name, values) {
  report.chosen[name] = new Set(values);
  report.cube.filter(report.index[name], wantedBuckets(name));
  show();
}

function toggle(name, value) {
  const chosen = new Set(report.chosen[name] || []);
  if (!chosen.delete(value)) chosen.add(value);
  choose(name, chosen);
}

function stateOf(name, value) {
  const chosen = report.chosen[name];
  return !chosen || !chosen.size ? 1 : chosen.has(value) ? 2 : 0;
}

/* Lists of bars: a button for each value. */

class Bars {
  constructor(holder, name, order, label = (value) => valueNames(name)[value], shown = 9) {
    Object.assign(this, { name, label, shown, order, open: false });
    this.list = element("ul", { className: "bars" });
    this.more = element("button", { type: "button", className: "more" });
    this.more.addEventListener("click", () => { this.open = !this.open; this.arrange(); });
    this.rows = new Map();
    holder.append(this.list, this.more);
    this.arrange();
  }

  arrange() {
    const values = this.open ? this.order : this.order.slice(0, this.shown);
    this.list.replaceChildren(...values.map((value) => this.row(value).item));
    this.more.hidden = this.order.length <= this.shown;
    this.more.textContent = this.open ? "fewer" : `${number.format(this.order.length - this.shown)} more`;
    if (this.counts) this.update(this.counts);
  }

  row(value) {
    if (!this.rows.has(value)) {
      const count = element("span", { className: "count" });
      const bar = element("progress", { max: 1, value: 0 });
      bar.setAttribute("aria-hidden", "true");
      const text = this.label(value);
      const button = element("button", { type: "button", className: "bar", title: text },
        element("span", { className: "label", textContent: text }), count, bar);
      button.addEventListener("click", () => this.press(value));
      this.rows.set(value, { item: element("li", {}, button), button, count, bar });
    }
    return this.rows.get(value);
  }

  press(value) { toggle(this.name, value); }

  update(counts) {
    this.counts = counts;
    const measured = shownMeasure(counts.files, counts.bytes);
    const most = Math.max(1, ...this.order.map((value) => measured[value]));
    const values = this.open ? this.order : this.order.slice(0, this.shown);
    for (const value of values) {
      const { button, count, bar } = this.row(value);
      const state = stateOf(this.name, value);
      count.textContent = inWords(measured[value]);
      bar.value = measured[value] / most;
      button.setAttribute("aria-pressed", String(state === 2));
      button.classList.toggle("faded", state === 0 || !measured[value]);
    }
  }
}

function byCount(totals) {
  return [...totals.files.keys()].sort((a, b) => totals.files[b] - totals.files[a] || a - b);
}

/* Buttons for what a chart has no place for. */

function pills(holder, name, values, totals) {
  holder.replaceChildren(...values.filter((value) => totals.files[value] || stateOf(name, value) === 2).map((value) => {
    const text = `${valueNames(name)[value]}: ${inWords(shownMeasure(totals.files[value], totals.bytes[value]))}`;
    const button = element("button", { type: "button", textContent: text });
    button.setAttribute("aria-pressed", String(stateOf(name, value) === 2));
    button.addEventListener("click", () => toggle(name, value));
    return button;
  }));
}

/* Charts. */

async function embed(name, signals, data) {
  const holder = byId(name), spec = structuredClone(page.specs[name]);
  for (const source of spec.data) if (data[source.name]) source.values = data[source.name];
  for (const signal of spec.signals) if (signal.name in signals) signal.value = signals[signal.name];
  Object.assign(spec, { width: signals.width, height: signals.height });
  report.views[name]?.finalize();
  const { view } = await vegaEmbed(holder, spec, {
    ast: true, actions: false, renderer: "svg", mode: "vega", defaultStyle: false, tooltip: (handler, event, item, value) => showTip(name, event, value),
    config: { background: "transparent", font: "system-ui, DejaVu Sans, sans-serif" },
  });
  report.views[name] = view;
  return view;
}

/* Show what a mark stands for beside the pointer; none: hide it. */
function showTip(chart, event, value) {
  const tip = byId("tip"), name = { map: "place", timeline: "time", folders: "folder" }[chart];
  const none = value === null || value === undefined || value === "";
  const [bucket, files, bytes] = none ? [] : Array.isArray(value) ? value
    : [value, report.totals[name].files[value], report.totals[name].bytes[value]];
  tip.hidden = none || !files;
  if (tip.hidden) return;
  tip.replaceChildren(element("strong", { textContent: dimensionOf(name).labels[bucket] || "all folders" }),
    element("br"), `${number.format(files)} files, ${bytesInWords(bytes)}`);
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${Math.min(event.clientY + 14, window.innerHeight - tip.offsetHeight - 8)}px`;
}

function cellShape(box) {
  // Clockwise, with points along its sides, as parallels are no great circles.
  const [west, south, east, north] = box, points = [];
  const steps = Math.max(1, Math.ceil((east - west) / 2));
  for (let i = 0; i <= steps; i += 1) points.push([west + ((east - west) * i) / steps, north]);
  for (let i = steps; i >= 0; i -= 1) points.push([west + ((east - west) * i) / steps, south]);
  points.push(points[0]);
  return { type: "Polygon", coordinates: [points] };
}

function prepareCells() {
  const { boxes } = dimensionOf("place");
  const outlines = new Map();
  for (const [bucket, polygons] of page.outlines || []) {
    outlines.set(bucket, [...(outlines.get(bucket) || []), ...polygons]);
  }
  report.cells = boxes.flatMap((box, bucket) => {
    if (!box) return [];
    const shape = outlines.has(bucket)
      ? { type: "MultiPolygon", coordinates: outlines.get(bucket) } : cellShape(box);
    return [{ bucket, shape, lon: (box[0] + box[2]) / 2, lat: (box[1] + box[3]) / 2 }];
  });
}

const mapView = { zoom: 1, pan: [0, 0], whole: false };

async function makeMap() {
  const holder = byId("map"), width = holder.clientWidth;
  const view = await embed("map", {
    width, height: Math.round(Math.min(520, Math.max(230, width * 0.48))),
    ink: style("--ink"), sea: style("--sea"), ground: style("--ground"), mark: style("--mark"),
    low: style("--low"), high: style("--high"), outlined: Boolean(page.outlines),
    centre: mapView.whole ? 0 : page.centre, frame: mapView.whole ? { type: "Sphere" } : page.frame,
    zoom: mapView.zoom, pan: mapView.pan,
  }, { land: page.land, cells: report.cells });
  view.addEventListener("click", (event, item) => {
    if (["cell", "dot"].includes(item?.mark.name) && !report.brushed) toggle("place", item.datum.bucket);
  });
  await view.runAsync();
}

function brushMap(view) {
  const brush = view.signal("brush");
  report.brushed = false;
  if (!brush) return;
  const [[x0, y0], [x1, y1]] = brush;
  clearBrush(view);
  if (Math.hypot(x1 - x0, y1 - y0) < 5) return;
  report.brushed = true;
  const inside = view.data("cells").filter((cell) =>
    cell.x >= Math.min(x0, x1) && cell.x <= Math.max(x0, x1)
    && cell.y >= Math.min(y0, y1) && cell.y <= Math.max(y0, y1));
  choose("place", inside.map((cell) => cell.bucket));
}

function clearBrush(view) {
  setTimeout(() => view.signal("brush", null).runAsync());
}

function moveMap(change) {
  Object.assign(mapView, change);
  const view = report.views.map;
  view.signal("zoom", mapView.zoom).signal("pan", mapView.pan);
  view.signal("centre", mapView.whole ? 0 : page.centre);
  view.signal("frame", mapView.whole ? { type: "Sphere" } : page.frame);
  view.runAsync();
}

function zoomMap(factor) {
  const zoom = Math.min(4000, Math.max(0.2, mapView.zoom * factor));
  const pan = mapView.pan.map((one) => (one * zoom) / mapView.zoom);
  moveMap({ zoom, pan });
}

function showMap(totals) {
  const measured = shownMeasure(totals.files, totals.bytes);
  const there = report.cells.map((cell) => measured[cell.bucket]).filter((value) => value > 0);
  const least = there.reduce((a, b) => Math.min(a, b), Infinity), most = Math.max(0, ...there);
  if (there.length) report.views.map.signal("least", least).signal("most", most);
  const chosen = measured.map((_, bucket) => Number(stateOf("place", bucket) === 2));
  report.views.map.signal("values", [...measured]).signal("chosen", [...chosen])
    .signal("shades", [...measured].map((value, bucket) => (!value ? 0 : stateOf("place", bucket) ? 1 : 0.35)));
  const legend = byId("legend");
  legend.replaceChildren();
  if (there.length) {
    const unit = page.outlines ? "an outline" : `a cell of ${page.cell}`;
    if (least < most) legend.append(inWords(least), element("span", { className: "ramp" }));
    legend.append(`${inWords(most)} ${report.measure === "bytes" ? "" : most === 1 ? "file" : "files"} in ${unit}. Click one, or drag over several, to select.`);
  }
  const { boxes } = dimensionOf("place");
  pills(byId("apart"), "place", boxes.flatMap((box, bucket) => (box ? [] : [bucket])), totals);
}

async function makeTimeline() {
  if (!report.bins.length) return;
  const holder = byId("timeline");
  const view = await embed("timeline", {
    width: holder.clientWidth, height: 190, ink: style("--soft"), faint: style("--line"),
    bar: style("--bar"), mark: style("--mark"),
  }, { bins: report.bins.map((bin) => ({ ...bin, value: 0 })) });
  await view.runAsync();
}

function brushTime(view) {
  const brush = view.signal("brush"), span = view.signal("span");
  if (!brush || !span) return;
  clearBrush(view);
  const single = Math.abs(brush[0] - brush[1]) < 4;
  const inside = report.bins.filter((bin) => (single
    ? bin.start <= span[0] && bin.end > span[0]
    : (bin.start + bin.end) / 2 >= span[0] && (bin.start + bin.end) / 2 <= span[1]));
  if (single && inside.length) toggle("time", inside[0].bucket);
  else choose("time", inside.map((bin) => bin.bucket));
}

function prepareBins() {
  const { starts, months, labels } = dimensionOf("time");
  report.bins = starts.flatMap((start, bucket) => (start ? [{
    bucket, start: Date.UTC(start[0], start[1] - 1), end: Date.UTC(start[0], start[1] - 1 + months), label: labels[bucket],
  }] : [])).sort((a, b) => a.start - b.start);
  for (const [id, title] of [["from", "the first"], ["to", "the last"]]) {
    byId(id).replaceChildren(element("option", { value: "", textContent: title }),
      ...report.bins.map((bin, at) => element("option", { value: at, textContent: bin.label })));
    byId(id).addEventListener("change", chooseSpan);
  }
  byId("timeline").hidden = !report.bins.length;
  byId("from").closest(".tools").hidden = report.bins.length < 2;
}

function chooseSpan() {
  const from = byId("from").value, to = byId("to").value;
  const first = from === "" ? 0 : Number(from), last = to === "" ? report.bins.length - 1 : Number(to);
  const all = from === "" && to === "";
  choose("time", all ? [] : report.bins.slice(first, last + 1).map((bin) => bin.bucket));
}

function showTimeline(totals) {
  const measured = shownMeasure(totals.files, totals.bytes);
  const view = report.views.timeline;
  if (report.bins.length) {
    view.signal("unit", report.measure);
    view.data("bins", report.bins.map((bin) => ({
      ...bin, value: measured[bin.bucket], on: stateOf("time", bin.bucket),
    })));
  }
  const { starts } = dimensionOf("time");
  pills(byId("undated"), "time", starts.flatMap((start, bucket) => (start ? [] : [bucket])), totals);
  if (!report.chosen.time?.size) { byId("from").value = ""; byId("to").value = ""; }
}

/* Folders. */

const folderName = (folder) => {
  const { labels, parents } = dimensionOf("folder");
  const path = labels[folder], around = parents[folder] < 0 ? "" : labels[parents[folder]];
  return folder === 0 && !path ? "all folders" : path.slice(around ? around.length : 0).replace(/^\/+/, "") || path || "/";
};

function prepareFolders() {
  const { parents } = dimensionOf("folder");
  report.below = parents.map(() => []);
  parents.forEach((parent, folder) => { if (parent >= 0) report.below[parent].push(folder); });
  report.folder = 0;
  const own = report.cube.totals(report.index.folder).files;
  while (report.below[report.folder].length === 1 && !own[report.folder]) [report.folder] = report.below[report.folder];
}

async function makeFolders() {
  const holder = byId("folders");
  const view = await embed("folders", {
    width: holder.clientWidth, height: holder.clientWidth < 500 ? 280 : 420, paper: style("--paper"), head: style("--ink"),
  }, { nodes: [{ id: "around", parent: null, area: 1 }] });
  view.addEventListener("click", (event, item) => {
    if (item?.mark.name === "box") openFolder(item.datum.folder);
  });
  await view.runAsync();
}

function openFolder(folder) {
  report.folder = folder;
  choose("folder", folder === 0 ? [] : [folder]);
}

/* Return files and bytes in each folder with all that is below it. */
function folderSums(totals) {
  const { parents } = dimensionOf("folder");
  const files = totals.files.slice(), bytes = totals.bytes.slice();
  report.deepestFirst ??= depthOrder(parents);
  for (const folder of report.deepestFirst) {
    if (parents[folder] < 0) continue;
    files[parents[folder]] += files[folder];
    bytes[parents[folder]] += bytes[folder];
  }
  return { files, bytes };
}

function depthOrder(parents) {
  const depth = parents.map((_, folder) => {
    let steps = 0;
    for (let one = folder; parents[one] >= 0; one = parents[one]) steps += 1;
    return steps;
  });
  return [...parents.keys()].sort((a, b) => depth[b] - depth[a]);
}

// Okabe and Ito's colours, which colour-blind people can tell apart.
const palette = ["#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#8fa8d6", "#d55e00", "#a6a6a6"];

function folderNodes(sums, own) {
  const root = report.folder, nodes = [];
  const add = (folder, parent, color, depth) => {
    const inner = depth < 2 && report.below[folder].length > 0;
    const measured = shownMeasure(sums.files[folder], sums.bytes[folder]);
    if (!measured) return;
    const about = { color, inner, folder, value: measured, tip: [folder, sums.files[folder], sums.bytes[folder]] };
    nodes.push({ id: `${folder}`, parent, name: folderName(folder), area: inner ? 0 : measured, ...about });
    if (!inner) return;
    const left = shownMeasure(own.files[folder], own.bytes[folder]);
    if (left) nodes.push({ ...about, id: `${folder} own`, parent: `${folder}`, inner: false, area: left, value: left,
      name: "other files", tip: [folder, own.files[folder], own.bytes[folder]] });
    report.below[folder].forEach((one, at) => add(one, `${folder}`, depth ? color : palette[at % palette.length], depth + 1));
  };
  add(root, null, palette[0], 0);
  // Where a folder has none below it, it is a box itself.
  if (nodes.length === 1) nodes.unshift({ id: "around", parent: null }), (nodes[1].parent = "around");
  return nodes;
}

function showFolders(totals) {
  const sums = folderSums(totals);
  report.below.forEach((some) => some.sort((a, b) => shownMeasure(sums.files[b], sums.bytes[b]) - shownMeasure(sums.files[a], sums.bytes[a])));
  report.views.folders.data("nodes", folderNodes(sums, totals));
  showCrumbs();
  const holder = byId("children");
  holder.replaceChildren();
  const list = new FolderBars(holder, "folder", report.below[report.folder], folderName, 12);
  list.update(sums);
}

class FolderBars extends Bars {
  press(folder) { openFolder(folder); }
}

function showCrumbs() {
  const { parents } = dimensionOf("folder"), path = [];
  for (let one = report.folder; one >= 0; one = parents[one]) path.unshift(one);
  byId("crumbs").replaceChildren(...path.flatMap((folder, at) => {
    const button = element("button", { type: "button", textContent: folderName(folder) });
    button.addEventListener("click", () => openFolder(folder));
    if (at === path.length - 1) button.setAttribute("aria-current", "true");
    return at ? [element("span", { textContent: "/" }), button] : [button];
  }));
}

/* Tables. */

function showErrors(totals) {
  const states = dimensionOf("state");
  const rows = states.labels.flatMap((_, bucket) => (states.advice[bucket] && totals.files[bucket] ? [bucket] : []));
  rows.sort((a, b) => totals.files[b] - totals.files[a]);
  byId("errors").hidden = !states.advice.some(Boolean);
  byId("error-table").tBodies[0].replaceChildren(...rows.map((bucket) => {
    const example = page.examples.find(([row]) => report.cube.codes[report.index.state][row] === bucket);
    return element("tr", {},
      element("td", { className: "number", textContent: number.format(totals.files[bucket]) }),
      element("td", { textContent: states.labels[bucket] }),
      element("td", { textContent: states.advice[bucket] }),
      element("td", { className: "path", textContent: example ? example[1] : "" }));
  }));
  if (!rows.length) byId("error-table").tBodies[0].append(element("tr", {}, element("td", { colSpan: 4, textContent: "Nothing of what is selected." })));
}

const MAX_EXAMPLES = 50;

function showExamples(selected) {
  const found = page.examples.filter(([row]) => !report.cube.failing[row]);
  report.examples = found.slice(0, MAX_EXAMPLES);
  const label = (name, row) => dimensionOf(name).labels[report.cube.codes[report.index[name]][row]];
  byId("example-table").tBodies[0].replaceChildren(...report.examples.map(([row, path, size]) => element("tr", {},
    element("td", { className: "path", textContent: path }),
    element("td", { className: "number", textContent: size === null ? "" : bytesInWords(size) }),
    ...["time", "driver", "crs", "pixel"].map((name) => element("td", { textContent: label(name, row) })))));
  byId("example-note").textContent = found.length
    ? `${number.format(report.examples.length)} of ${number.format(selected.files)} files. This page knows the paths of ${number.format(page.examples.length)} files; the catalog has them all.`
    : `This page knows the paths of ${number.format(page.examples.length)} files, and none of them is selected; the catalog has them all.`;
  byId("copy").hidden = !found.length;
}

async function copyPaths() {
  const text = report.examples.map(([, path]) => path).join("\n");
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  byId("copy").textContent = "copied";
  setTimeout(() => { byId("copy").textContent = "copy the paths"; }, 1500);
}

/* All of it. */

function showTotal(selected) {
  const all = report.all, share = element("strong", { textContent: number.format(selected.files) });
  const rest = selected.files === all.files ? ` files, ${bytesInWords(all.bytes)}`
    : ` of ${number.format(all.files)} files, ${bytesInWords(selected.bytes)} of ${bytesInWords(all.bytes)}`;
  byId("total").replaceChildren(share, rest);
}

function showChips() {
  const chips = page.dimensions.filter(({ name }) => report.chosen[name]?.size).map(({ name, title }) => {
    const names = [...report.chosen[name]].map((value) => valueNames(name)[value] || "all");
    const text = `${title}: ${names.length > 2 ? `${names.length} chosen` : names.join(", ")} ✕`;
    const chip = element("button", { type: "button", textContent: text, title: "show all again" });
    chip.addEventListener("click", () => choose(name, []));
    return chip;
  });
  if (chips.length > 1) {
    const all = element("button", { type: "button", textContent: "show all again ✕" });
    all.addEventListener("click", showAll);
    chips.push(all);
  }
  byId("chips").replaceChildren(...chips);
}

function showAll() {
  for (const { name } of page.dimensions) {
    report.chosen[name] = new Set();
    report.cube.filter(report.index[name], null);
  }
  prepareFolders();
  show();
}

function show() {
  const started = performance.now();
  const totals = Object.fromEntries(page.dimensions.map(({ name }, index) => [name, report.cube.totals(index)]));
  report.totals = totals;
  const selected = report.cube.sum(true);
  showTotal(selected);
  showChips();
  showMap(totals.place);
  showTimeline(totals.time);
  showFolders(totals.folder);
  for (const bars of report.bars) bars.update(valuesOf(dimensionOf(bars.name), totals[bars.name]));
  showErrors(totals.state);
  showExamples(selected);
  report.drawn = Promise.all(Object.values(report.views).map((view) => view.runAsync()))
    .then(() => { report.milliseconds = performance.now() - started; });
  return report.drawn;
}

function makeFacets() {
  const holder = byId("facets");
  report.bars = page.dimensions.filter(({ facet }) => facet).map((dimension) => {
    const totals = valuesOf(dimension, report.cube.totals(report.index[dimension.name]));
    const order = dimension.ordered ? [...totals.files.keys()] : byCount(totals);
    const title = element("h2", { textContent: dimension.title });
    const card = element("section", { className: "card", id: `facet-${dimension.name}` }, title);
    holder.append(card);
    return new Bars(card, dimension.name, order.filter((value) => totals.files[value]), undefined, dimension.ordered ? 14 : 9);
  });
  report.bars.push(new Bars(byId("facet-place"), "place", byCount(report.cube.totals(report.index.place)), undefined, 12));
}

async function makeCharts() {
  await makeMap();
  await makeTimeline();
  await makeFolders();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  byId("theme").textContent = theme === "dark" ? "light" : "dark";
}

function listen() {
  // Of the window, as the button may be let go outside of a chart.
  window.addEventListener("mouseup", () => {
    brushMap(report.views.map);
    if (report.views.timeline) brushTime(report.views.timeline);
  });
  for (const measure of ["files", "bytes"]) {
    byId(`by-${measure}`).addEventListener("click", () => {
      report.measure = measure;
      for (const one of ["files", "bytes"]) byId(`by-${one}`).setAttribute("aria-pressed", String(one === measure));
      show();
    });
  }
  byId("theme").addEventListener("click", async () => {
    setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    await makeCharts();
    show();
  });
  byId("copy").addEventListener("click", copyPaths);
  byId("nearer").addEventListener("click", () => zoomMap(1.6));
  byId("farther").addEventListener("click", () => zoomMap(1 / 1.6));
  byId("fit").addEventListener("click", () => moveMap({ zoom: 1, pan: [0, 0], whole: false }));
  byId("globe").addEventListener("click", () => moveMap({ zoom: 1, pan: [0, 0], whole: true }));
  byId("map").addEventListener("keydown", moveByKey);
  let waiting = 0, width = document.body.clientWidth;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      if (document.body.clientWidth === width) return; // a phone's address bar comes and goes
      width = document.body.clientWidth;
      await makeCharts();
      show();
    }, 200);
  });
}

function moveByKey(event) {
  const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  if (event.key === "+") zoomMap(1.6);
  else if (event.key === "-") zoomMap(1 / 1.6);
  else if (steps[event.key]) moveMap({ pan: mapView.pan.map((one, at) => one + steps[event.key][at]) });
  else return;
  event.preventDefault();
}

async function start() {
  setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const columns = columnsOf(await inflated(page.cube), page.planes, page.rows);
  report.cube = new Cube(columns, page.dimensions);
  report.index = Object.fromEntries(page.dimensions.map(({ name }, index) => [name, index]));
  report.all = report.cube.sum(false);
  byId("main").hidden = false;
  prepareCells();
  prepareBins();
  prepareFolders();
  makeFacets();
  await makeCharts();
  listen();
  for (const [name, values] of Object.entries(page.chosen)) {
    report.chosen[name] = new Set(values);
    report.cube.filter(report.index[name], wantedBuckets(name));
  }
  await show();
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  byId("failure").hidden = false;
  byId("failure").textContent = `This browser cannot show the report (${error.message}). One of 2023 or later can.`;
  throw error;
});
