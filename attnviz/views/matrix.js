// A matrix of weights to point at, zoom into and walk through: cells on a canvas, labels in the DOM.
import { clamp, LABEL, largestOf, make, makeButton, makeToken, onTheme, paint, paintLegend, pool, READ, readFloats, readRoots, tableButton, takesKeys, toNoKey, writeTable } from "./common.js";
import { shorten, visible } from "./visible.js";

const CELL = 26, MAX_CELL = 44, COMFORTABLE = 280, MAX_HEIGHT = 640; // CSS pixels
const LABEL_STEP = 14, MAX_LABEL = 120, AXIS = 20, AXIS_LENGTH = 110, GAP = 4, DRAG = 4;
const REACH = 2 ** 24; // weights that Python works out for one closer look
const SETTLED = 40; // milliseconds without zooming before a closer look
const TABLE_ROWS = 200;
const DECADES = 4; // of the logarithmic scale
const HINT = "Point at a cell, or focus the picture and use the arrow keys. Click or Enter pins a row, Esc lets it go.";
const ZOOM_HINT = " Wheel, + and − zoom, 0 shows all, a drag moves.";

// Behind the cells may stand what of each query goes to no key.
function readCells({ rows, columns, values, exact }) {
  const all = exact ? readFloats(values) : readRoots(values), n = rows * columns;
  return { rows, columns, values: all.subarray(0, n), rest: all.subarray(n), rounded: !exact };
}

// parent: where to put it.   options: how it speaks to the view around it:
//   ask(question) → promise of { answer, buffers }: a closer look, or a whole row
//   select({ query, key }): the reader pinned a row, or let go (both null)
//   setColors({ scale, threshold }): the reader chose other colours
export function makeMatrix(parent, { ask, select, setColors }) {
  const root = make(parent, "div", "attnviz-matrix");
  const title = make(root, "div", "attnviz-title");
  const scroll = make(root, "div", "attnviz-scroll");
  const plot = make(scroll, "div", "attnviz-plot");
  const readout = make(root, "div", "attnviz-readout", HINT);
  readout.setAttribute("aria-live", "polite");
  const problem = make(root, "div", "attnviz-problem");
  problem.setAttribute("role", "status");
  const foot = make(root, "div", "attnviz-foot");
  const legend = make(foot, "span", "attnviz-legend");
  const legendMin = make(legend, "span");
  const legendCanvas = make(legend, "canvas");
  const legendMax = make(legend, "span");
  const scaleLabel = make(foot, "label", "", "colours");
  const scaleBox = make(scaleLabel, "select");
  for (const [value, text] of [["linear", "linear"], ["log", "logarithmic"], ["row", "per row"]]) {
    make(scaleBox, "option", "", text).value = value;
  }
  const thresholdLabel = make(foot, "label", "", "hide below");
  const slider = make(thresholdLabel, "input");
  Object.assign(slider, { type: "range", min: 0, max: 1, step: "any", value: 0 });
  slider.dataset.lmSuppressShortcuts = "true";
  const thresholdText = make(thresholdLabel, "span");
  const zoomBox = make(foot, "span", "attnviz-zoom");
  const table = tableButton(foot, root, fillTable);

  const queryAxis = make(plot, "div", "attnviz-axis attnviz-axis-query", "query (attends)");
  const keyAxis = make(plot, "div", "attnviz-axis", "key (is attended to)");
  const labels = make(plot, "div");
  const canvas = make(plot, "canvas", "attnviz-cells");
  takesKeys(canvas, "Attention");
  const currentQuery = make(plot, "div", "attnviz-label attnviz-label-query attnviz-current");
  const currentKey = make(plot, "div", "attnviz-label attnviz-label-key attnviz-current");

  let data = null, queries = [], keys = [], palette; // what is shown; the tokens as they can be seen
  let whole, closer = null, largest = 1, lowest = 0; // the overview; a window seen more closely; the range of colours
  let scale = "linear", threshold = 0;
  let left, top, width, height, wide, high; // the layout in CSS pixels; a cell at home
  let zoom = 1, row0 = 0, column0 = 0; // the first query and key in sight, as fractions of a cell
  let marked = null, pinned = null, pinnedRow = null; // {query, key}; the weights of the pinned query
  let pictures = new Map(); // painted cells, by where they come from
  let timer = 0, version = 0, drag = null, dragged = false, pressed = null, armed = false, lastScreen = null;

  const cellWide = () => wide * zoom, cellHigh = () => high * zoom;
  const isTiny = () => Math.min(cellWide(), cellHigh()) < 6;
  const isWhole = () => whole.rows === queries.length && whole.columns === keys.length;
  const inSight = () => ({
    first: clamp(Math.floor(row0), 0, queries.length - 1),
    end: clamp(Math.ceil(row0 + height / cellHigh()), 1, queries.length),
    firstKey: clamp(Math.floor(column0), 0, keys.length - 1),
    endKey: clamp(Math.ceil(column0 + width / cellWide()), 1, keys.length),
  });

  // --- the data -------------------------------------------------------------------------------

  // next: { title, queries, keys, cells, palette, most?, range?, provisional? }; most is the weight at which the
  // colours end, without it the largest; range is [lowest, highest] for changes of weights; provisional: better
  // cells are on their way, so nothing is to be asked for.
  function show(next) {
    const sameShape = data && next.queries.length === queries.length && next.keys.length === keys.length;
    if (next.queries !== data?.queries) queries = next.queries.map(visible);
    if (next.keys !== data?.keys) keys = next.keys.map(visible);
    data = next;
    version += 1;
    palette = next.palette;
    whole = { ...readCells(next.cells), row: 0, column: 0, endRow: queries.length, endColumn: keys.length };
    closer = null;
    pinnedRow = null;
    pictures.clear();
    [lowest, largest] = next.range ?? [0, next.most ?? (largestOf(whole.values, 0) || 1)];
    slider.max = largest;
    slider.value = threshold;
    thresholdLabel.hidden = scaleLabel.hidden = Boolean(next.range);
    problem.textContent = "";
    title.textContent = next.title ?? "";
    if (!sameShape) { zoom = 1; row0 = column0 = 0; }
    if (marked && (marked.query >= queries.length || marked.key >= keys.length)) marked = null;
    if (pinned && (pinned.query >= queries.length || (pinned.key ?? 0) >= keys.length)) pinned = null;
    takesKeys(canvas,
      `${next.title || "Attention"}: ${queries.length} queries by ${keys.length} keys${whole.rest.length ? ", a share of each row to no key" : ""}. ` +
      "Arrow keys move, Enter pins a row, Escape lets it go, plus and minus zoom.");
    paintLegend(legendCanvas, palette);
    layOut();
    changed();
  }

  // The cells that hold a token's weight in most detail: the closer look where it reaches, or the overview.
  function cellsFor({ query, key }) {
    const c = closer;
    return c && query >= c.row && query < c.endRow && key >= c.column && key < c.endColumn ? c : whole;
  }
  // What stands at a query and a key: a weight, and which queries and keys share it.
  function valueAt(at) {
    const c = cellsFor(at), rows = c.endRow - c.row, columns = c.endColumn - c.column;
    // the patch that a token is in: its borders are at floor(n · i / patches)
    const patch = (x, n, patches) => {
      let i = Math.floor((x * patches) / n);
      while (Math.floor(((i + 1) * n) / patches) <= x) i++;
      return i;
    };
    const i = patch(at.query - c.row, rows, c.rows), j = patch(at.key - c.column, columns, c.columns);
    const border = (place, n, patches, start) => start + Math.floor((place * n) / patches);
    return {
      weight: c.values[i * c.columns + j],
      rounded: c.rounded,
      first: border(i, rows, c.rows, c.row), last: border(i + 1, rows, c.rows, c.row) - 1,
      firstKey: border(j, columns, c.columns, c.column), lastKey: border(j + 1, columns, c.columns, c.column) - 1,
    };
  }

  function lookCloser() {
    clearTimeout(timer);
    const w = inSight(), rows = w.end - w.first, columns = w.endKey - w.firstKey;
    const enough = data.provisional || isWhole() || rows * keys.length > REACH ||
      // more than the overview has for this window?
      (rows * whole.rows >= queries.length * Math.min(rows, 512) && columns * whole.columns >= keys.length * Math.min(columns, 512));
    const c = closer, fine = (patches, tokens, now) => patches === tokens || tokens <= 2 * now; // single weights, or nearly as many as fit
    const covered = c && w.first >= c.row && w.end <= c.endRow && w.firstKey >= c.column && w.endKey <= c.endColumn &&
      fine(c.rows, c.endRow - c.row, rows) && fine(c.columns, c.endColumn - c.column, columns);
    sayDetail();
    if (enough || covered) return;
    timer = setTimeout(async () => {
      const asked = version;
      try {
        const { answer, buffers } = await ask({ window: [w.first, w.end, w.firstKey, w.endKey] });
        if (asked !== version) return; // another matrix is shown by now
        closer = { ...answer, values: readFloats(buffers[0]), rowMost: readFloats(buffers[1]),
          row: w.first, endRow: w.end, column: w.firstKey, endColumn: w.endKey };
        pictures.delete("closer");
        problem.textContent = "";
        sayDetail();
        draw();
      } catch (error) {
        if (asked === version) problem.textContent = error.message;
      }
    }, SETTLED);
  }
  function sayDetail() {
    const w = inSight(), c = closer;
    const near = c && c.rows === c.endRow - c.row && c.columns === c.endColumn - c.column &&
      w.first >= c.row && w.end <= c.endRow && w.firstKey >= c.column && w.endKey <= c.endColumn;
    root.dataset.detail = isWhole() || near ? "exact" : "overview";
  }

  async function readPinnedRow() {
    const asked = version, { query } = pinned;
    if (pinnedRow?.query === query) return;
    if (isWhole()) {
      pinnedRow = { query, weights: whole.values.subarray(query * keys.length, (query + 1) * keys.length) };
      return;
    }
    pinnedRow = { query, weights: null };
    try {
      const { buffers } = await ask({ row: query });
      if (asked !== version || pinnedRow?.query !== query) return;
      pinnedRow.weights = readFloats(buffers[0]);
      draw();
    } catch (error) { if (asked === version) problem.textContent = error.message; }
  }

  // --- the picture ----------------------------------------------------------------------------

  function lengthOfLongest(tokens) {
    const context = canvas.getContext("2d");
    context.font = `700 12px ${getComputedStyle(root).fontFamily}`;
    const longest = tokens.reduce((most, t) => (t.length <= most.length ? most : t), ""); // by characters first: quick
    const some = tokens.length > 500 ? [longest] : tokens, wide = (token) => context.measureText(shorten(token, LABEL)).width;
    return Math.min(MAX_LABEL, Math.ceil(some.reduce((most, t) => Math.max(most, wide(t)), 0)) + 2);
  }

  function layOut() {
    left = AXIS + lengthOfLongest(queries) + GAP;
    top = AXIS + lengthOfLongest(keys) + GAP;
    const room = Math.max(120, (root.clientWidth || 720) - left - 24);
    const most = Math.max(CELL, Math.min(MAX_CELL, COMFORTABLE / Math.max(queries.length, keys.length)));
    const fit = (space, n) => (n <= space ? Math.floor(Math.min(most, space / n)) : space / n); // few tokens get large cells
    [wide, high] = [fit(room, keys.length), fit(MAX_HEIGHT, queries.length)];
    if (queries.length === keys.length) wide = high = Math.min(wide, high);
    width = wide * keys.length;
    height = high * queries.length;
    const dpr = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.round(width * dpr), height: Math.round(height * dpr) });
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    Object.assign(plot.style, { width: `${left + Math.max(width, AXIS_LENGTH)}px`, height: `${top + Math.max(height, AXIS_LENGTH)}px` });
    Object.assign(queryAxis.style, { left: "0", top: `${top}px` });
    Object.assign(keyAxis.style, { left: `${left}px`, top: "0" });
    zoomBox.hidden = Math.min(wide, high) >= LABEL_STEP;
    moveTo(row0, column0, zoom);
  }

  // Show the matrix from another corner, at another size; never beyond its edges.
  function moveTo(row, column, times) {
    zoom = clamp(times, 1, Math.max(1, MAX_CELL / Math.min(wide, high)));
    row0 = clamp(row, 0, queries.length - height / cellHigh());
    column0 = clamp(column, 0, keys.length - width / cellWide());
    writeLabels();
    lookCloser();
  }
  // Zoom so that what is under a place of the canvas stays there.
  function zoomAt(x, y, factor) {
    const row = row0 + y / cellHigh(), column = column0 + x / cellWide();
    const times = clamp(zoom * factor, 1, Math.max(1, MAX_CELL / Math.min(wide, high)));
    moveTo(row - y / (high * times), column - x / (wide * times), times);
    draw();
  }
  function zoomFromKeyboard(factor) {
    const at = marked ?? pinned;
    const [x, y] = at ? [(at.key + 0.5 - column0) * cellWide(), (at.query + 0.5 - row0) * cellHigh()] : [width / 2, height / 2];
    zoomAt(clamp(x, 0, width), clamp(y, 0, height), factor);
  }
  function reset() { moveTo(0, 0, 1); draw(); }
  makeButton(zoomBox, "+", () => zoomFromKeyboard(2)).setAttribute("aria-label", "Zoom in");
  makeButton(zoomBox, "−", () => zoomFromKeyboard(0.5)).setAttribute("aria-label", "Zoom out");
  makeButton(zoomBox, "Show all", reset);

  function place(node, text, x, y, w, h) {
    node.textContent = shorten(text, LABEL);
    node.title = text;
    Object.assign(node.style, { left: `${x}px`, top: `${y}px`, width: `${w}px`, height: `${h}px` });
  }
  const middle = (i, from, size) => (i + 0.5 - from) * size - LABEL_STEP / 2;
  const placeQuery = (node, i) => place(node, queries[i], AXIS, top + middle(i, row0, cellHigh()), left - AXIS - GAP, LABEL_STEP);
  const placeKey = (node, j) => place(node, keys[j], left + middle(j, column0, cellWide()), AXIS, LABEL_STEP, top - AXIS - GAP);
  function writeLabels() {
    labels.replaceChildren();
    const { first, end, firstKey, endKey } = inSight();
    const write = (from, to, start, size, room, name, put) => {
      const step = Math.ceil(LABEL_STEP / size); // leave labels out where they would overlap
      for (let i = Math.ceil(from / step) * step; i < to; i += step) {
        const at = (i + 0.5 - start) * size;
        if (at >= 0 && at <= room) put(make(labels, "div", `attnviz-label attnviz-label-${name}`), i);
      }
    };
    write(first, end, row0, cellHigh(), height, "query", placeQuery);
    write(firstKey, endKey, column0, cellWide(), width, "key", placeKey);
  }

  // Hide the labels that the current one would cover in part.
  function makeRoom(node, name, side) {
    for (const label of labels.getElementsByClassName(`attnviz-label-${name}`)) {
      const near = !node.hidden && Math.abs(parseFloat(label.style[side]) - parseFloat(node.style[side])) < LABEL_STEP;
      label.style.visibility = near ? "hidden" : "";
    }
  }

  function toColor(c) {
    const low = Math.log10(largest) - DECADES;
    const most = scale === "row" ? (c.rowMost ?? rowMosts(c)) : null;
    return (weight, i) => {
      if (weight < threshold && !data.range) return null;
      if (scale === "log" && !data.range) return weight > 0 ? (Math.log10(weight) - low) / DECADES : 0;
      const top = most && !data.range ? most[Math.floor(i / c.columns)] || 1 : largest;
      return (weight - lowest) / (top - lowest);
    };
  }
  function rowMosts({ values, rows, columns }) {
    return Float32Array.from({ length: rows }, (_, i) =>
      largestOf(values.subarray(i * columns, (i + 1) * columns), 0));
  }

  function drawCells(context, name, c) {
    if (!c) return;
    const [sizeX, sizeY] = [(c.endColumn - c.column) * cellWide(), (c.endRow - c.row) * cellHigh()];
    if (!pictures.has(name) || pictures.get(name).zoom !== zoom) {
      const dpr = window.devicePixelRatio || 1;
      const small = pool(c.values, c.rows, c.columns, Math.max(1, Math.ceil(sizeY * dpr)), Math.max(1, Math.ceil(sizeX * dpr)));
      const painted = small.values === c.values ? c : { ...small, rowMost: c.rowMost && pool(c.rowMost, c.rows, 1, small.rows, 1).values };
      const old = pictures.get(name);
      const image = old && painted === c && old.cells === c ? old.image : paint(painted.values, painted.rows, painted.columns, palette, toColor(painted));
      pictures.set(name, { zoom, image, cells: painted });
    }
    context.drawImage(pictures.get(name).image, (c.column - column0) * cellWide(), (c.row - row0) * cellHigh(), sizeX, sizeY);
  }

  // A frame around cells: dark in light, so that it shows on every colour; outside where cells are tiny.
  function frame(context, { query, key = 0, columns = 1 }) {
    const out = isTiny() ? 2 : -0.5;
    const x = (key - column0) * cellWide(), y = (query - row0) * cellHigh();
    for (const [color, line] of [["#000", 3], ["#fff", 1.5]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: line });
      context.strokeRect(x - out, y - out, columns * cellWide() + 2 * out, cellHigh() + 2 * out);
    }
  }

  function draw() {
    if (!data) return;
    const context = canvas.getContext("2d");
    context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    drawCells(context, "whole", whole);
    drawCells(context, "closer", closer);
    if (pinned) {
      const y = (pinned.query - row0) * cellHigh();
      context.fillStyle = "rgb(128 128 128 / 60%)";
      context.fillRect(0, 0, width, y);
      context.fillRect(0, y + cellHigh(), width, height);
      frame(context, { query: pinned.query, columns: keys.length });
    }
    const current = marked ?? (pinned?.key == null ? null : pinned);
    if (current) frame(context, current);
    const w = inSight();
    currentQuery.hidden = !current || current.query < w.first || current.query >= w.end;
    currentKey.hidden = !current || current.key < w.firstKey || current.key >= w.endKey;
    if (!currentQuery.hidden) placeQuery(currentQuery, current.query);
    if (!currentKey.hidden) placeKey(currentKey, current.key);
    makeRoom(currentQuery, "query", "top");
    makeRoom(currentKey, "key", "left");
    writeReadout(current);
  }

  // --- the words ------------------------------------------------------------------------------

  // Two digits of a weight that is like all others: the longer the text, the smaller the weights.
  const decimals = () => clamp(Math.ceil(Math.log10(keys.length)) + 1, 3, 6);
  const inShort = (weight) => weight.toFixed(weight > 0 && weight < 0.1 ? decimals() - 1 : 2);
  const digits = (weight) => {
    const text = weight.toFixed(decimals());
    if (!data.range || Number(text) === 0) return text.replace("-", "");
    return text.replace(/^(?=\d)/, "+").replace("-", "−");
  };
  function writeReadout(current) {
    readout.replaceChildren();
    if (!current && !pinned) readout.textContent = HINT + (zoomBox.hidden ? "" : ZOOM_HINT);
    if (current) {
      const found = valueAt(current), value = make(readout, "b", "attnviz-value");
      const single = found.first === found.last && found.firstKey === found.lastKey;
      if (single) {
        makeToken(value, queries[current.query]);
        value.append(" → ");
        makeToken(value, keys[current.key]);
        value.append(`: ${found.rounded ? "≈ " : ""}${digits(found.weight)}`);
        make(readout, "span", "attnviz-place", ` query ${current.query}, key ${current.key}`);
      } else {
        value.append(`largest of ${found.last - found.first + 1} × ${found.lastKey - found.firstKey + 1} weights: ${found.rounded ? "≈ " : ""}${digits(found.weight)}`);
        make(readout, "span", "attnviz-place", ` queries ${found.first}–${found.last}, keys ${found.firstKey}–${found.lastKey}`);
      }
      const said = pinned?.query === current.query; // below
      if (whole.rest.length && found.first === found.last && !said) make(readout, "span", "attnviz-rest", ` · ${restOf(current.query)}`);
    }
    if (!pinned || !pinnedRow?.weights) return;
    const line = make(readout, "div", "attnviz-pinned", "pinned: ");
    makeToken(line, queries[pinned.query]);
    line.append(data.range ? " changed most in " : " attends most to ");
    strongest(pinnedRow.weights, 3).forEach((key, i) => {
      if (i) line.append(" · ");
      makeToken(line, keys[key]);
      line.append(`\u00a0${digits(pinnedRow.weights[key])}`);
    });
    if (whole.rest.length) line.append(` · ${restOf(pinned.query)}`);
  }
  // What of a query goes to no key; in a picture of changes, how much more.
  function restOf(query) {
    const rest = whole.rest[query], more = data.range && rest > 0 ? "+" : "";
    return toNoKey(Math.abs(rest), (whole.rounded ? "≈ " : "") + (rest < 0 ? "−" : more));
  }
  const strongest = (weights, n) =>
    Array.from(weights.keys()).sort((a, b) => Math.abs(weights[b]) - Math.abs(weights[a]) || a - b).slice(0, n);

  async function fillTable(node) {
    const query = (pinned ?? marked)?.query ?? 0;
    let weights;
    if (isWhole()) weights = whole.values.subarray(query * keys.length, (query + 1) * keys.length);
    else {
      make(node, "caption", "", "Waiting for Python …");
      try { weights = readFloats((await ask({ row: query })).buffers[0]); } catch (error) { node.firstChild.textContent = error.message; return; }
      node.replaceChildren();
    }
    const some = strongest(weights, TABLE_ROWS).sort((a, b) => a - b);
    const which = some.length < keys.length ? `, the ${some.length} largest of ${keys.length} weights` : "";
    writeTable(node, `What “${shorten(queries[query], READ)}” (query ${query}) ${data.range ? "changed in" : "attends to"}${which}`,
      ["position", "key", "weight"], [...some.map((key) => [key, keys[key], digits(weights[key])]),
        ...(whole.rest.length ? [["", "no key", digits(whole.rest[query])]] : [])], 1);
  }

  // --- the reader -----------------------------------------------------------------------------

  function cellAt(event) {
    return {
      query: clamp(Math.floor(row0 + event.offsetY / cellHigh()), 0, queries.length - 1),
      key: clamp(Math.floor(column0 + event.offsetX / cellWide()), 0, keys.length - 1),
    };
  }
  function toggle(at) {
    const same = pinned && pinned.query === at.query && pinned.key === at.key;
    select(same ? { query: null, key: null } : { query: at.query, key: at.key });
  }

  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  function walk(down, right) {
    const mark = marked ?? pinned;
    // the first key press shows where the mark stands
    if (!mark) marked = { query: Math.floor(row0), key: Math.floor(column0) };
    else {
      const at = { query: mark.query, key: mark.key ?? 0 }, { query, key } = at;
      // token by token, or patch by patch where a token is too small to see
      const { first, last, firstKey, lastKey } = isTiny() ? valueAt(at) : { first: query, last: query, firstKey: key, lastKey: key };
      const step = (x, by, low, high, n) => clamp(by > 0 ? high + 1 : by < 0 ? low - 1 : x, 0, n - 1);
      marked = { query: step(at.query, down, first, last, queries.length), key: step(at.key, right, firstKey, lastKey, keys.length) };
    }
    const follow = (x, from, room, size) => (x < from ? x : x + 1 > from + room / size ? x + 1 - room / size : from);
    const [row, column] = [follow(marked.query, row0, height, cellHigh()), follow(marked.key, column0, width, cellWide())];
    if (row !== row0 || column !== column0) moveTo(row, column, zoom);
    draw();
    for (const label of [currentQuery, currentKey]) label.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const mark = marked ?? pinned;
    if (event.key in steps) walk(...steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") toggle({ query: mark?.query ?? 0, key: mark?.key ?? 0 });
    else if (event.key === "+" || event.key === "=") zoomFromKeyboard(2);
    else if (event.key === "-") zoomFromKeyboard(0.5);
    else if (event.key === "0") reset();
    else if (event.key === "Escape") {
      if (!marked && !pinned) return; // the view around may want it
      marked = null;
      draw(); // nothing else would, where nothing was pinned
      select({ query: null, key: null });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  function onMove(event) {
    armed ||= lastScreen !== null && (lastScreen[0] !== event.screenX || lastScreen[1] !== event.screenY);
    lastScreen = [event.screenX, event.screenY];
    if (drag) {
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      dragged ||= zoom > 1 && Math.hypot(dx, dy) > DRAG;
      if (dragged) {
        canvas.classList.add("attnviz-dragged");
        moveTo(drag.row - dy / cellHigh(), drag.column - dx / cellWide(), zoom);
      }
    }
    marked = cellAt(event);
    draw();
  }
  canvas.addEventListener("pointermove", onMove);
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    dragged = false;
    pressed = cellAt(event); // the cell that is marked: a click speaks of whole pixels only
    drag = { x: event.clientX, y: event.clientY, row: row0, column: column0 };
    if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
  });
  const letGo = () => { drag = null; canvas.classList.remove("attnviz-dragged"); };
  canvas.addEventListener("pointerup", letGo);
  canvas.addEventListener("pointercancel", letGo);
  canvas.addEventListener("pointerleave", () => { armed = false; lastScreen = null; marked = null; draw(); });
  canvas.addEventListener("blur", () => { marked = null; draw(); });
  canvas.addEventListener("click", (event) => {
    if (!dragged) toggle(pressed ?? cellAt(event));
    pressed = null;
  });
  canvas.addEventListener("keydown", onKey);
  // The wheel zooms once the pointer has moved over the picture, so that a page scrolled past it scrolls on.
  canvas.addEventListener("wheel", (event) => {
    const wanted = (armed || event.ctrlKey) && !zoomBox.hidden;
    if (!wanted || (zoom === 1 && event.deltaY > 0)) return;
    event.preventDefault();
    zoomAt(event.offsetX, event.offsetY, 2 ** (-clamp(event.deltaY, -200, 200) / 200));
  }, { passive: false });
  scaleBox.addEventListener("change", () => setColors({ scale: scaleBox.value, threshold }));
  slider.addEventListener("input", () => setColors({ scale, threshold: Number(slider.value) }));

  // --- from the view around ---------------------------------------------------------------------

  function changed() {
    legendMax.textContent = data.range ? digits(largest) : scale === "row" ? "its row's largest" : inShort(largest);
    legendMin.textContent = data.range ? `change of weight ${digits(lowest)}` : scale === "log" ? `weight ${(largest / 10 ** DECADES).toPrecision(1)}` : "weight 0";
    thresholdText.textContent = inShort(threshold);
    draw();
    table.refresh();
  }
  function recolor(nextScale, nextThreshold) {
    [scale, threshold] = [nextScale, nextThreshold];
    scaleBox.value = scale;
    slider.value = threshold;
    pictures.clear();
    if (data) changed();
  }
  function pin({ query, key }) {
    const known = query !== null && query < queries.length && (key ?? 0) < keys.length;
    pinned = known ? { query, key } : null;
    if (pinned) readPinnedRow();
    draw();
    table.refresh();
  }

  let lastWidth = 0;
  const resized = new ResizeObserver(() => {
    if (!data || root.clientWidth === lastWidth) return;
    lastWidth = root.clientWidth;
    pictures.clear();
    layOut();
    draw();
  });
  resized.observe(root);
  const stopTheme = onTheme(draw);
  const remove = () => { clearTimeout(timer); version += 1; resized.disconnect(); stopTheme(); };
  return { show, pin, setColors: recolor, remove, root, canvas, problem };
}
