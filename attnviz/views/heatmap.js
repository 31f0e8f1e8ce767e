// One attention matrix: cells on a canvas, labels in the DOM, every number at hand without a kernel.

const CELL = 26, MAX_CELL = 44, COMFORTABLE = 280, MAX_HEIGHT = 800, LABEL_STEP = 14, MAX_LABEL = 120, AXIS = 20, AXIS_LENGTH = 110, GAP = 4; // CSS pixels
const HINT = "Point at a cell, or focus the picture and use the arrow keys. Click or Enter pins a row, Esc lets it go.";

const make = (parent, tag, className, text = "") => {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text; // tokens are text, never markup
  parent.append(node);
  return node;
};

const readFloats = (view) => {
  const length = Math.floor(view.byteLength / 4);
  return Float32Array.from({ length }, (_, i) => view.getFloat32(4 * i, true));
};

// The matrix as an image with one pixel for each cell.
function paint(weights, rows, columns, palette, max) {
  const image = new ImageData(columns, rows);
  for (let i = 0; i < weights.length; i++) {
    const color = 3 * Math.round(255 * weights[i] / max);
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = palette.getUint8(color + c);
    image.data[4 * i + 3] = 255;
  }
  const canvas = new OffscreenCanvas(columns, rows);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function paintLegend(canvas, palette) {
  canvas.width = 256;
  canvas.height = 1;
  const all = Float32Array.from({ length: 256 }, (_, i) => i);
  canvas.getContext("2d").drawImage(paint(all, 1, 256, palette, 255), 0, 0);
}

function render({ model, el }) {
  const root = make(el, "div", "attnviz-heatmap");
  const title = make(root, "div", "attnviz-title");
  const scroll = make(root, "div", "attnviz-scroll");
  const plot = make(scroll, "div", "attnviz-plot");
  const readout = make(root, "div", "attnviz-readout", HINT);
  readout.setAttribute("aria-live", "polite");
  const foot = make(root, "div", "attnviz-foot");
  const legend = make(foot, "span", "attnviz-legend");
  make(legend, "span", "", "weight 0");
  const legendCanvas = make(legend, "canvas", "");
  const legendMax = make(legend, "span", "");
  const tableButton = make(foot, "button", "", "Show as table");
  tableButton.type = "button";
  tableButton.setAttribute("aria-expanded", "false");
  const table = make(root, "div", "attnviz-table");
  table.hidden = true;
  table.tabIndex = 0; // so that the keyboard can scroll it

  const queryAxis = make(plot, "div", "attnviz-axis attnviz-axis-query", "query (attends)");
  const keyAxis = make(plot, "div", "attnviz-axis", "key (is attended to)");
  const labels = make(plot, "div", "");
  const canvas = make(plot, "canvas", "attnviz-cells");
  canvas.tabIndex = 0;
  canvas.dataset.lmSuppressShortcuts = "true"; // or JupyterLab takes the keys: the arrows, "b" for a new cell …
  canvas.setAttribute("role", "application");
  const currentQuery = make(plot, "div", "attnviz-label attnviz-label-query attnviz-current");
  const currentKey = make(plot, "div", "attnviz-label attnviz-label-key attnviz-current");

  let queries, keys, weights, max, image; // the data
  let wide, high, left, top; // the layout in CSS pixels: a cell, and where the first one starts
  let tabled = null; // the query that the table shows
  let pointed = null; // the cell under the pointer or the keyboard: {query, key}

  const pinned = () => {
    const { query, key } = model.get("selection");
    const known = query !== null && query < queries.length && (key ?? 0) < keys.length;
    return known ? { query, key } : null;
  };
  const weightOf = ({ query, key }) => weights[query * keys.length + key];

  function readData() {
    queries = model.get("query_tokens");
    keys = model.get("key_tokens");
    weights = readFloats(model.get("cells"));
    max = weights.reduce((a, b) => Math.max(a, b), 0) || 1;
    image = paint(weights, queries.length, keys.length, model.get("palette"), max);
    tabled = null;
    if (pointed && (pointed.query >= queries.length || pointed.key >= keys.length)) pointed = null;
    title.textContent = model.get("title");
    legendMax.textContent = max.toFixed(2);
    canvas.setAttribute("aria-label",
      `${model.get("title") || "Attention"}: ${queries.length} queries by ${keys.length} keys. ` +
      "Arrow keys move, Enter pins a row, Escape lets it go.");
  }

  function lengthOfLongest(tokens) {
    const context = canvas.getContext("2d");
    context.font = `700 12px ${getComputedStyle(root).fontFamily}`;
    const longest = tokens.reduce((most, t) => Math.max(most, context.measureText(t).width), 0);
    return Math.min(MAX_LABEL, Math.ceil(longest) + 2);
  }

  function place(node, text, x, y, width, height) {
    node.textContent = text;
    node.title = text;
    Object.assign(node.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
  }
  const placeQuery = (node, i) =>
    place(node, queries[i], AXIS, top + (i + 0.5) * high - LABEL_STEP / 2, left - AXIS - GAP, LABEL_STEP);
  const placeKey = (node, j) =>
    place(node, keys[j], left + (j + 0.5) * wide - LABEL_STEP / 2, AXIS, LABEL_STEP, top - AXIS - GAP);

  function layOut() {
    left = AXIS + lengthOfLongest(queries) + GAP;
    top = AXIS + lengthOfLongest(keys) + GAP;
    const room = (root.clientWidth || 720) - left - 24;
    const most = Math.max(CELL, Math.min(MAX_CELL, COMFORTABLE / Math.max(queries.length, keys.length)));
    const fit = (space, n) => Math.max(1, Math.floor(Math.min(most, space / n))); // few tokens get large cells
    [wide, high] = [fit(room, keys.length), fit(MAX_HEIGHT, queries.length)];
    if (queries.length === keys.length) wide = high = Math.min(wide, high);
    const width = wide * keys.length, height = high * queries.length, dpr = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: width * dpr, height: height * dpr });
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    Object.assign(plot.style, { width: `${left + Math.max(width, AXIS_LENGTH)}px`, height: `${top + Math.max(height, AXIS_LENGTH)}px` });
    Object.assign(queryAxis.style, { left: "0", top: `${top}px` });
    Object.assign(keyAxis.style, { left: `${left}px`, top: "0" });
    labels.replaceChildren();
    const step = (size) => Math.ceil(LABEL_STEP / size); // leave labels out where they would overlap
    for (let i = 0; i < queries.length; i += step(high)) placeQuery(make(labels, "div", "attnviz-label attnviz-label-query"), i);
    for (let j = 0; j < keys.length; j += step(wide)) placeKey(make(labels, "div", "attnviz-label attnviz-label-key"), j);
  }

  // A frame around cells: dark in light, so that it shows on every colour; outside where cells are tiny.
  function frame(context, { query, key = 0, columns = 1 }) {
    const out = Math.min(wide, high) < 6 ? 2 : -0.5;
    for (const [color, line] of [["#000", 3], ["#fff", 1.5]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: line });
      context.strokeRect(key * wide - out, query * high - out, columns * wide + 2 * out, high + 2 * out);
    }
  }

  function draw() {
    const context = canvas.getContext("2d"), pin = pinned();
    const width = wide * keys.length, height = high * queries.length;
    context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, width, height);
    if (pin) {
      context.fillStyle = "rgb(128 128 128 / 60%)";
      context.fillRect(0, 0, width, pin.query * high);
      context.fillRect(0, (pin.query + 1) * high, width, height);
      frame(context, { query: pin.query, columns: keys.length });
    }
    const current = pointed ?? (pin?.key === null ? null : pin);
    if (current) frame(context, current);
    currentQuery.hidden = currentKey.hidden = !current;
    if (current) { placeQuery(currentQuery, current.query); placeKey(currentKey, current.key); }
    writeReadout(current, pin);
    if (!table.hidden) writeTable((pin ?? current)?.query ?? 0);
  }

  function writeReadout(current, pin) {
    readout.replaceChildren();
    if (!current && !pin) readout.textContent = HINT;
    if (current) {
      const value = make(readout, "b", "attnviz-value");
      make(value, "bdi", "", queries[current.query]); // keeps the arrow's direction beside right-to-left scripts
      value.append(" → ");
      make(value, "bdi", "", keys[current.key]);
      value.append(`: ${weightOf(current).toFixed(3)}`);
      make(readout, "span", "attnviz-place", ` query ${current.query}, key ${current.key}`);
    }
    if (!pin) return;
    const row = keys.map((token, key) => [weightOf({ query: pin.query, key }), token]).sort((a, b) => b[0] - a[0]);
    const line = make(readout, "div", "attnviz-pinned", "pinned: ");
    make(line, "bdi", "", queries[pin.query]);
    line.append(" attends most to ");
    row.slice(0, 3).forEach(([weight, token], i) => {
      if (i) line.append(" · ");
      make(line, "bdi", "", token);
      line.append(` ${weight.toFixed(3)}`);
    });
  }

  function writeTable(query) {
    if (tabled === query) return;
    tabled = query;
    table.replaceChildren();
    const node = make(table, "table", "");
    make(node, "caption", "", `What “${queries[query]}” (query ${query}) attends to`);
    const head = make(make(node, "thead", ""), "tr", "");
    for (const name of ["position", "key", "weight"]) make(head, "th", "", name).scope = "col";
    const body = make(node, "tbody", "");
    keys.forEach((token, key) => {
      const row = make(body, "tr", "");
      make(row, "td", "", key);
      make(row, "th", "", token).scope = "row";
      make(row, "td", "", weightOf({ query, key }).toFixed(3));
    });
  }

  function select(at) {
    model.set("selection", { ...model.get("selection"), query: at?.query ?? null, key: at?.key ?? null });
    model.save_changes();
    draw();
  }
  const samePin = (at) => pinned() && pinned().query === at.query && pinned().key === at.key;

  function cellAt(event) {
    const cell = (x, size, n) => Math.max(0, Math.min(n - 1, Math.floor(x / size)));
    return { query: cell(event.offsetY, high, queries.length), key: cell(event.offsetX, wide, keys.length) };
  }

  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  function onKey(event) {
    const mark = pointed ?? pinned(), at = { query: mark?.query ?? 0, key: mark?.key ?? 0 };
    if (event.key in steps) {
      const [down, right] = steps[event.key], inside = (x, n) => Math.max(0, Math.min(n - 1, x));
      // the first key press shows where the mark stands
      pointed = mark ? { query: inside(at.query + down, queries.length), key: inside(at.key + right, keys.length) } : at;
      draw();
      for (const label of [currentQuery, currentKey]) label.scrollIntoView({ block: "nearest", inline: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") {
      select(samePin(at) ? null : at);
    } else if (event.key === "Escape") {
      pointed = null;
      select(null);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  canvas.addEventListener("pointermove", (event) => { pointed = cellAt(event); draw(); });
  canvas.addEventListener("pointerleave", () => { pointed = null; draw(); });
  canvas.addEventListener("blur", () => { pointed = null; draw(); });
  canvas.addEventListener("click", (event) => { const at = cellAt(event); select(samePin(at) ? null : at); });
  canvas.addEventListener("keydown", onKey);
  tableButton.addEventListener("click", () => {
    table.hidden = !table.hidden;
    tableButton.textContent = table.hidden ? "Show as table" : "Hide table";
    tableButton.setAttribute("aria-expanded", String(!table.hidden));
    draw();
  });

  const start = () => { readData(); layOut(); draw(); };
  let waiting = 0; // several traits change at once: draw them together
  const restart = () => { waiting ||= requestAnimationFrame(() => { waiting = 0; start(); }); };
  const data = "change:cells change:query_tokens change:key_tokens change:title";
  const redraw = () => { if (!waiting) draw(); }; // the matrix a new selection speaks of may still be on its way
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (waiting || root.clientWidth === width) return;
    width = root.clientWidth;
    layOut();
    draw();
  });
  model.on(data, restart);
  model.on("change:selection", redraw);
  start();
  paintLegend(legendCanvas, model.get("palette"));
  resized.observe(root);
  return () => {
    cancelAnimationFrame(waiting);
    resized.disconnect();
    model.off(data, restart);
    model.off("change:selection", redraw);
  };
}

export default { render };
