// One attention matrix: cells on a canvas, labels in the DOM, every number at hand without a kernel.

const CELL = 26, MAX_CELL = 44, COMFORTABLE = 280, LABEL_STEP = 14, MAX_LABEL = 120, AXIS = 20, AXIS_LENGTH = 110, GAP = 4; // CSS pixels
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
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrow keys for itself
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

  const queryAxis = make(plot, "div", "attnviz-axis attnviz-axis-query", "query (attends)");
  const keyAxis = make(plot, "div", "attnviz-axis", "key (is attended to)");
  const labels = make(plot, "div", "");
  const canvas = make(plot, "canvas", "attnviz-cells");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const currentQuery = make(plot, "div", "attnviz-label attnviz-label-query attnviz-current");
  const currentKey = make(plot, "div", "attnviz-label attnviz-label-key attnviz-current");

  let queries, keys, weights, max, image; // the data
  let cell, left, top; // the layout, in CSS pixels
  let pointed = null; // the cell under the pointer or the keyboard: {query, key}

  const pinned = () => {
    const { query, key } = model.get("selection");
    return query === null ? null : { query, key: key ?? 0 };
  };
  const weightOf = ({ query, key }) => weights[query * keys.length + key];

  function readData() {
    queries = model.get("query_tokens");
    keys = model.get("key_tokens");
    weights = readFloats(model.get("cells"));
    max = weights.reduce((a, b) => Math.max(a, b), 0) || 1;
    image = paint(weights, queries.length, keys.length, model.get("palette"), max);
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
    place(node, queries[i], AXIS, top + (i + 0.5) * cell - LABEL_STEP / 2, left - AXIS - GAP, LABEL_STEP);
  const placeKey = (node, j) =>
    place(node, keys[j], left + (j + 0.5) * cell - LABEL_STEP / 2, AXIS, LABEL_STEP, top - AXIS - GAP);

  function layOut() {
    left = AXIS + lengthOfLongest(queries) + GAP;
    top = AXIS + lengthOfLongest(keys) + GAP;
    const room = (root.clientWidth || 720) - left - 24;
    const wanted = Math.max(CELL, Math.min(MAX_CELL, COMFORTABLE / keys.length)); // few tokens get large cells
    cell = Math.max(1, Math.floor(Math.min(wanted, room / keys.length)));
    const width = cell * keys.length, height = cell * queries.length, dpr = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: width * dpr, height: height * dpr });
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    Object.assign(plot.style, { width: `${left + Math.max(width, AXIS_LENGTH)}px`, height: `${top + Math.max(height, AXIS_LENGTH)}px` });
    Object.assign(queryAxis.style, { left: "0", top: `${top}px` });
    Object.assign(keyAxis.style, { left: `${left}px`, top: "0" });
    labels.replaceChildren();
    const step = Math.ceil(LABEL_STEP / cell); // leave labels out where they would overlap
    for (let i = 0; i < queries.length; i += step) placeQuery(make(labels, "div", "attnviz-label attnviz-label-query"), i);
    for (let j = 0; j < keys.length; j += step) placeKey(make(labels, "div", "attnviz-label attnviz-label-key"), j);
  }

  function frame(context, x, y, width, height) { // dark in light, so that it shows on every colour
    for (const [color, line] of [["#000", 3], ["#fff", 1.5]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: line });
      context.strokeRect(x, y, width, height);
    }
  }

  function draw() {
    const context = canvas.getContext("2d"), dpr = window.devicePixelRatio || 1;
    const width = cell * keys.length, height = cell * queries.length, pin = pinned();
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(image, 0, 0, width, height);
    if (pin) {
      context.fillStyle = "rgb(128 128 128 / 60%)";
      context.fillRect(0, 0, width, pin.query * cell);
      context.fillRect(0, (pin.query + 1) * cell, width, height);
      frame(context, 0.5, pin.query * cell + 0.5, width - 1, Math.max(1, cell - 1));
    }
    const current = pointed ?? pin;
    if (current) frame(context, current.key * cell + 0.5, current.query * cell + 0.5, Math.max(1, cell - 1), Math.max(1, cell - 1));
    currentQuery.hidden = currentKey.hidden = !current;
    if (current) { placeQuery(currentQuery, current.query); placeKey(currentKey, current.key); }
    writeReadout(current, pin);
    if (!table.hidden) writeTable((pin ?? current)?.query ?? 0);
  }

  function writeReadout(current, pin) {
    if (!current) return void (readout.textContent = HINT);
    readout.replaceChildren();
    make(readout, "b", "attnviz-value", `${queries[current.query]} → ${keys[current.key]}: ${weightOf(current).toFixed(3)}`);
    if (!pin) return;
    const row = keys.map((token, key) => [weightOf({ query: pin.query, key }), token]).sort((a, b) => b[0] - a[0]);
    const most = row.slice(0, 3).map(([weight, token]) => `${token} ${weight.toFixed(3)}`).join(" · ");
    make(readout, "div", "attnviz-pinned", `pinned: ${queries[pin.query]} attends most to ${most}`);
  }

  function writeTable(query) {
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
    const clamp = (x, n) => Math.max(0, Math.min(n - 1, Math.floor(x / cell)));
    return { query: clamp(event.offsetY, queries.length), key: clamp(event.offsetX, keys.length) };
  }

  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  function onKey(event) {
    const at = pointed ?? pinned() ?? { query: 0, key: 0 };
    if (event.key in steps) {
      const [down, right] = steps[event.key], inside = (x, n) => Math.max(0, Math.min(n - 1, x));
      const moved = pointed ?? pinned(); // the first key press shows where the mark stands
      pointed = moved ? { query: inside(at.query + down, queries.length), key: inside(at.key + right, keys.length) } : at;
      draw();
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
