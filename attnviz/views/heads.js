// Every head as a thumbnail; the one that is chosen beside them, close up.
import { clamp, largestOf, make, onTheme, paint, pool, questions, readBytes, readFloats, soon, tableButton, takesKeys, writeTable } from "./common.js";
import { makeMatrix } from "./matrix.js";

const SMALLEST = 14, LARGEST = 44, SPACE = 3, LEFT = 36, TOP = 30, NAME = 13; // CSS pixels: thumbnails, the gap, labels
const GRID_HINT = "Each square is a head: rows are queries, columns keys. Click or Enter opens one.";
const SORTED_HINT = " Below it: layer · head.";
const NATURAL = "layer and head";

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-heads");
  const title = make(root, "div", "attnviz-title");
  const beside = make(root, "div", "attnviz-beside");
  const overview = make(beside, "div", "attnviz-overview");
  const tools = make(overview, "div", "attnviz-foot");
  const orderLabel = make(tools, "label", "", "sort by");
  const orderBox = make(orderLabel, "select");
  for (const name of [NATURAL, ...Object.keys(model.get("measured"))]) make(orderBox, "option", "", name).value = name;
  const grid = make(overview, "canvas", "attnviz-grid");
  takesKeys(grid, "All heads. Arrow keys move, Enter opens a head.");
  const readout = make(overview, "div", "attnviz-readout");
  readout.setAttribute("aria-live", "polite");
  const state = make(overview, "div", "attnviz-state");
  const table = tableButton(tools, root, fillTable);

  const { ask, stop } = questions(model);
  let busy = 0, removed = false; // the reader's own questions go first
  const askFirst = async (question) => {
    busy += 1;
    try { return await ask(question); } finally { busy -= 1; }
  };
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const matrix = makeMatrix(beside, {
    ask: (question) => askFirst({ ...question, of: [open.layer, open.head] }),
    select: ({ query, key }) => set({ selection: { ...model.get("selection"), query, key } }),
    setColors: set,
  });

  const perLayer = model.get("heads"), names = model.get("names");
  const all = perLayer.flatMap((n, layer) => Array.from({ length: n }, (_, head) => ({ layer, head })));
  all.forEach((one, i) => { one.index = i; });
  const measured = Object.fromEntries(Object.entries(model.get("measured")).map(([name, bytes]) => [name, readFloats(bytes)]));
  let roots, rows, columns, most; // the thumbnails: one byte each, their size, the largest
  let order = [], side = LARGEST, across = 1; // heads in the order shown, the size of one, and how many stand side by side
  let pointed = null, open = { layer: null, head: null }, asked = 0;

  // --- thumbnails -----------------------------------------------------------------------------

  function readThumbnails() {
    const sent = model.get("thumbnails");
    roots = Uint8Array.from(readBytes(sent.values)); // a copy, made better piece by piece
    ({ rows, columns } = sent);
    most = largestOf(roots, 1);
  }
  const thumbnail = ({ index }) => roots.subarray(index * rows * columns, (index + 1) * rows * columns);

  const natural = () => !(model.get("order") in measured);
  function sort() {
    orderBox.value = natural() ? NATURAL : model.get("order");
    const by = measured[orderBox.value];
    order = by ? [...all].sort((a, b) => by[b.index] - by[a.index] || a.index - b.index) : all;
  }
  // Where a head stands in the grid, in columns and rows.
  const placeOf = (i) => (natural() ? [order[i].head, order[i].layer] : [i % across, Math.floor(i / across)]);
  const left = () => (natural() ? LEFT : 2), top = () => (natural() ? TOP : 2);
  const pitchX = () => side + SPACE, pitchY = () => side + SPACE + (natural() ? 0 : NAME);
  const headAt = (column, row) => order.findIndex((_, i) => placeOf(i)[0] === column && placeOf(i)[1] === row);

  function layOut() {
    const room = root.clientWidth || 900;
    across = Math.max(...perLayer);
    const wanted = room > 740 ? Math.max(300, room * 0.42) : room - 8; // the open head beside it, or below
    side = clamp(Math.floor((wanted - left()) / across) - SPACE, SMALLEST, LARGEST);
    if (!natural()) {
      side = Math.max(side, 26); // room for the name below
      across = Math.max(1, Math.min(across, Math.floor((wanted - left()) / pitchX())));
    }
    const down = natural() ? perLayer.length : Math.ceil(order.length / across), dpr = window.devicePixelRatio || 1;
    const [width, height] = [left() + across * pitchX(), top() + down * pitchY()];
    Object.assign(grid, { width: width * dpr, height: height * dpr });
    Object.assign(grid.style, { width: `${width}px`, height: `${height}px` });
    Object.assign(overview.style, { width: `${Math.max(width, 300)}px` });
  }

  function drawGrid() {
    const context = grid.getContext("2d"), dpr = window.devicePixelRatio || 1, style = getComputedStyle(root);
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    context.clearRect(0, 0, grid.width, grid.height);
    context.imageSmoothingEnabled = false;
    context.font = `11px ${style.fontFamily}`;
    context.fillStyle = style.color;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const every = Math.ceil(18 / pitchX());
    if (natural()) {
      for (let i = 0; i < across; i += every) context.fillText(i, LEFT + i * pitchX() + side / 2, TOP - 9);
      for (let i = 0; i < perLayer.length; i += every) context.fillText(i, LEFT - 11, TOP + i * pitchY() + side / 2);
      context.textAlign = "left";
      context.fillText("head", LEFT, 7);
      context.save();
      context.translate(8, TOP);
      context.rotate(-Math.PI / 2);
      context.textAlign = "right";
      context.fillText("layer", 0, 0);
      context.restore();
      context.textAlign = "center";
    }
    const pixels = Math.ceil(side * dpr);
    order.forEach((one, i) => {
      const [column, row] = placeOf(i), x = left() + column * pitchX(), y = top() + row * pitchY();
      const small = pool(thumbnail(one), rows, columns, pixels, pixels);
      const image = paint(small.values, small.rows, small.columns, model.get("palette"), (root) => root / most);
      context.drawImage(image, x, y, side, side);
      if (!natural()) context.fillText(`${one.layer}·${one.head}`, x + side / 2, y + side + 7);
    });
    drawFrames();
  }

  // Frames stand on a copy of the thumbnails, so that moving the pointer paints nothing anew.
  let painted = null;
  function keepPainted() {
    painted = new OffscreenCanvas(grid.width, grid.height);
    painted.getContext("2d").drawImage(grid, 0, 0);
  }
  function drawFrames() {
    const context = grid.getContext("2d"), style = getComputedStyle(root);
    if (painted) {
      context.save();
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, grid.width, grid.height);
      context.drawImage(painted, 0, 0);
      context.restore();
    } else keepPainted();
    const frame = (i, color, line) => {
      if (i < 0) return;
      const [column, row] = placeOf(i);
      Object.assign(context, { strokeStyle: color, lineWidth: line });
      context.strokeRect(left() + column * pitchX() - 1, top() + row * pitchY() - 1, side + 2, side + 2);
    };
    frame(order.findIndex((one) => one.layer === open.layer && one.head === open.head), style.getPropertyValue("--attnviz-accent").trim() || "#1976d2", 3);
    if (pointed !== null) frame(pointed, style.color, 1.5);
    writeReadout();
  }
  const redrawGrid = () => { painted = null; drawGrid(); };

  function writeReadout() {
    readout.replaceChildren();
    const one = order[pointed];
    if (!one) { readout.textContent = GRID_HINT + (natural() ? "" : SORTED_HINT); return; }
    make(readout, "b", "attnviz-value", `layer ${one.layer}, head ${one.head}`);
    if (names[one.layer]) make(readout, "span", "attnviz-place", ` ${names[one.layer]}`);
    const said = Object.entries(measured).map(([name, values]) => `${name} ${values[one.index].toFixed(2)}`.replaceAll(" ", "\u00a0"));
    make(readout, "div", "", said.join(" · "));
  }
  function writeState() {
    const n = model.get("query_tokens").length, on = model.get("measured_on");
    const parts = [];
    if (on < n) parts.push(`Measured on ${on} of ${n} queries.`);
    if (model.get("sampled") > 1) parts.push(`The thumbnails show one query in ${model.get("sampled")}; reading the others${progress}.`);
    state.textContent = parts.join(" ");
  }
  function fillTable(node) {
    const listed = Object.keys(measured);
    writeTable(node, `What each head does: means over ${model.get("measured_on")} queries`, ["layer, head", ...listed],
      order.map((one) => [`${one.layer}, ${one.head}`, ...listed.map((name) => measured[name][one.index].toFixed(3))]), 0);
  }

  // --- the open head --------------------------------------------------------------------------

  function showOpen(cells) {
    matrix.show({
      title: `layer ${open.layer}, head ${open.head}`,
      queries: model.get("query_tokens"),
      keys: model.get("key_tokens"),
      cells,
      palette: model.get("palette"),
    });
    matrix.setColors(model.get("scale"), model.get("threshold"));
    matrix.pin(model.get("selection"));
  }
  async function openHead() {
    const selected = model.get("selection"), first = open.layer === null;
    const one = all.find((a) => a.layer === selected.layer && a.head === selected.head) ?? (first ? all[0] : open);
    const { layer, head } = one;
    // perhaps another query in the same head
    if (open.layer === layer && open.head === head) { matrix.pin(selected); return; }
    open = { layer, head };
    drawFrames();
    const number = ++asked;
    if (first && model.get("cells").values && layer === 0 && head === 0) { showOpen(model.get("cells")); return; }
    // the thumbnail at once, and the head itself as soon as it is here
    const coarse = thumbnail(one);
    showOpen({ rows, columns, exact: false, values: new DataView(coarse.buffer, coarse.byteOffset, coarse.byteLength) });
    try {
      const { answer, buffers } = await askFirst({ open: [layer, head] });
      if (number === asked) showOpen({ ...answer, values: buffers[0] });
    } catch (error) {
      if (number === asked) matrix.problem.textContent = error.message;
    }
  }
  const choose = (i) => {
    const one = order[i];
    if (one) set({ selection: { ...model.get("selection"), layer: one.layer, head: one.head } });
  };

  // --- the rest of the queries, while the view is in sight -----------------------------------------

  let progress = "", inSight = false, reading = false, whole = 0;
  async function readOn() {
    if (reading) return;
    reading = true;
    while (!removed && inSight && model.get("sampled") > 1) {
      if (busy) { await new Promise((later) => setTimeout(later, 50)); continue; }
      try {
        const { answer, buffers } = await ask({ refine: true });
        if (answer.done && !buffers.length) break;
        const better = readBytes(buffers[0]), high = answer.end - answer.first;
        for (let h = 0; h < answer.heads; h++) {
          roots.set(better.subarray(h * high * columns, (h + 1) * high * columns), ((answer.start + h) * rows + answer.first) * columns);
        }
        whole ||= answer.left + 1;
        progress = ` (${Math.round(100 * (1 - answer.left / whole))} %)`;
        grow.later();
      } catch (error) {
        progress = ` stopped: ${error.message}`;
        writeState();
        break;
      }
    }
    reading = false;
  }
  const grow = soon(() => { most = largestOf(roots, 1); redrawGrid(); writeState(); });
  const sight = new IntersectionObserver(([seen]) => { inSight = seen.isIntersecting; readOn(); });

  // --- the reader -----------------------------------------------------------------------------

  function at(event) {
    const column = Math.floor((event.offsetX - left()) / pitchX()), row = Math.floor((event.offsetY - top()) / pitchY());
    const i = headAt(column, row);
    return i < 0 ? null : i;
  }
  const steps = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
  function point(i) {
    if (pointed === i) return;
    pointed = i;
    drawFrames();
  }
  grid.addEventListener("pointermove", (event) => point(at(event)));
  grid.addEventListener("pointerleave", () => point(null));
  grid.addEventListener("blur", () => point(null));
  grid.addEventListener("click", (event) => choose(at(event)));
  grid.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const opened = Math.max(0, order.findIndex((one) => one.layer === open.layer && one.head === open.head));
    if (event.key in steps) {
      const [right, down] = steps[event.key], [column, row] = placeOf(pointed ?? opened);
      const next = pointed === null ? opened : headAt(column + right, row + down);
      if (next >= 0) point(next);
    } else if (event.key === "Enter" || event.key === " ") {
      choose(pointed ?? opened);
      matrix.canvas.focus();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  matrix.canvas.addEventListener("keydown", (event) => { // what the matrix left over: back to the heads
    if (event.key === "Escape" && !event.defaultPrevented) { grid.focus(); event.stopPropagation(); }
  });
  orderBox.addEventListener("change", () => set({ order: orderBox.value }));

  const arrange = () => { sort(); layOut(); redrawGrid(); table.refresh(); };
  const writeTitle = () => { title.textContent = model.get("title"); };
  const refresh = () => { readThumbnails(); redrawGrid(); writeState(); };
  const color = () => matrix.setColors(model.get("scale"), model.get("threshold"));
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    layOut();
    redrawGrid();
  });
  readThumbnails();
  writeTitle();
  arrange();
  writeState();
  openHead();
  model.on("change:selection", openHead);
  model.on("change:order", arrange);
  model.on("change:title", writeTitle);
  model.on("change:thumbnails change:sampled", refresh);
  model.on("change:scale change:threshold", color);
  const stopTheme = onTheme(redrawGrid);
  resized.observe(root);
  sight.observe(root);
  return () => {
    removed = true;
    grow.cancel();
    matrix.remove();
    resized.disconnect();
    sight.disconnect();
    stopTheme();
    stop();
    model.off("change:selection", openHead);
    model.off("change:order", arrange);
    model.off("change:title", writeTitle);
    model.off("change:thumbnails change:sampled", refresh);
    model.off("change:scale change:threshold", color);
  };
}

export default { render };
