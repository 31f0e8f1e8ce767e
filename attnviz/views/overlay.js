// Attention laid over an image, patch by patch.
import { clamp, LABEL, make, makeToken, paint, questions, readShorts, soon, tableButton, takesKeys, toNoKey, writeTable } from "./common.js";
import { shorten, visible } from "./visible.js";

const WIDEST = 640, HIGHEST = 400, TILE = 72; // CSS pixels: the picture, and the longer side of a head's small one
const TEXT = 400; // CSS pixels for the words below the picture
const COARSE = 4; // a picture enlarged by more than this shows its pixels
const KEPT = 64; // queries whose rows stay here
const MOST_ROWS = 200; // of the table

// Choose one of several with a click or the arrow keys: buttons of one group, of which one is in the tab order.
function makeChoices(parent, name, choose) {
  const root = make(parent, "div", "attnviz-overlay-choices");
  root.setAttribute("role", "radiogroup");
  root.setAttribute("aria-label", name);
  const buttons = [];
  const pick = (i) => { choose(i); buttons[i].focus(); };
  const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
  root.addEventListener("keydown", (event) => {
    const i = buttons.indexOf(event.target);
    if (i < 0 || !(event.key in steps) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    pick(clamp(i + steps[event.key], 0, buttons.length - 1));
  });
  function add() {
    const i = buttons.length, button = make(root, "button", "attnviz-overlay-choice");
    button.type = "button";
    button.setAttribute("role", "radio");
    button.dataset.lmSuppressShortcuts = "true";
    button.addEventListener("click", () => pick(i));
    buttons.push(button);
    return button;
  }
  function check(chosen) {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-checked", String(i === chosen));
      button.tabIndex = i === Math.max(0, chosen) ? 0 : -1;
    });
  }
  const clear = () => { buttons.length = 0; root.replaceChildren(); };
  return { root, add, check, clear };
}

// The rows of queries that were asked for, newest last.
function keepRows(model, ask) {
  const oneLayer = model.get("one_layer"), kept = new Map(), onTheWay = new Set();
  const name = ({ query, layer }) => (oneLayer ? `${query} ${layer}` : `${query}`);
  const keep = (want, view) => {
    kept.set(name(want), readShorts(view));
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  };
  const first = model.get("rows");
  keep(first, first.values);
  return {
    first,
    of: (want) => kept.get(name(want)),
    alike: (a, b) => name(a) === name(b),
    // Resolves to whether rows came; false for those that are on their way already.
    async load(want) {
      if (onTheWay.has(name(want))) return false;
      onTheWay.add(name(want));
      try {
        const { buffers } = await ask(oneLayer ? { query: want.query, layer: want.layer } : { query: want.query });
        keep(want, buffers[0]);
      } finally { onTheWay.delete(name(want)); }
      return true;
    },
  };
}

// Size a canvas in CSS pixels, sharp on every screen; returns its context, which counts in them.
function sized(canvas, width, height) {
  const dpr = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: Math.round(width * dpr), height: Math.round(height * dpr) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const context = canvas.getContext("2d");
  context.setTransform(canvas.width / width, 0, 0, canvas.height / height, 0, 0);
  return context;
}

// The picture under colours. It is grey from half of their strength on, so that every hue is a weight's.
function drawOverlay(context, picture, colors, width, height, strength) {
  context.imageSmoothingEnabled = !picture || width < COARSE * picture.width;
  if (picture) context.drawImage(picture, 0, 0, width, height);
  context.globalCompositeOperation = "saturation";
  context.globalAlpha = Math.min(1, 2 * strength);
  context.fillStyle = "#808080";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "source-over";
  context.imageSmoothingEnabled = false;
  context.globalAlpha = strength;
  context.drawImage(colors, 0, 0, width, height);
  context.globalAlpha = 1;
}

// All colours as they look over bright pixels (above) and dark ones (below).
function drawLegend(canvas, palette, strength) {
  const context = sized(canvas, 120, 14), shade = context.createLinearGradient(0, 0, 0, 14);
  shade.addColorStop(0, "#fff");
  shade.addColorStop(1, "#000");
  context.fillStyle = shade;
  context.fillRect(0, 0, 120, 14);
  drawOverlay(context, null, paint(Float32Array.from({ length: 256 }, (_, i) => i / 255), 1, 256, palette, (x) => x), 120, 14, strength);
}

function render({ model, el }) {
  const { rows, columns, extra, first, width, height } = model.get("grid");
  const nPatches = rows * columns, nKeys = extra + nPatches;
  const layers = model.get("layers"), across = nKeys + Number(layers.some(({ sinks }) => sinks)); // numbers of a row
  const tokens = model.get("tokens").map(visible), palette = model.get("palette");
  const ofText = tokens.length > 0; // the queries are no patches
  const digits = (weight) => weight.toFixed(nKeys > 1000 ? 5 : 4);
  const hint = ofText
    ? "Point at a patch for its weight; a click keeps it in sight. Keys: arrows, Enter, Esc."
    : "Point at a patch for its weight; click it to ask what it looks at; Shift-click keeps its weight in sight. Keys: arrows, Enter, Space, Esc.";

  // --- the elements ---------------------------------------------------------------------------

  const root = make(el, "div", "attnviz attnviz-overlay");
  const title = make(root, "div", "attnviz-title");
  const bar = make(root, "div", "attnviz-foot attnviz-overlay-bar");
  const layerLabel = make(bar, "label", "", "layer");
  const layerBox = make(layerLabel, "select");
  layerBox.dataset.lmSuppressShortcuts = "true";
  layers.forEach(({ name }, i) => { make(layerBox, "option", "", name ? `${i}: ${name}` : `${i}`).value = i; });
  const strengthLabel = make(bar, "label", "", "strength");
  const slider = make(strengthLabel, "input");
  Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.05 });
  slider.dataset.lmSuppressShortcuts = "true";
  const strengthText = make(strengthLabel, "span");
  const chipLine = make(bar, "div", "attnviz-overlay-chips", "query");
  const question = make(root, "div", "attnviz-overlay-question");
  const sides = make(root, "div", "attnviz-overlay-sides");
  const left = make(sides, "div", "attnviz-overlay-left");
  const canvas = make(left, "canvas", "attnviz-overlay-image");
  takesKeys(canvas, `Image in ${rows} rows and ${columns} columns of patches. Arrow keys move. ` +
    (ofText ? "Enter keeps a patch’s weight in sight" : "Enter asks what a patch looks at, Space keeps its weight in sight") +
    ", Escape returns to the first query.");
  const strip = makeChoices(sides, "Head", (i) => select({ head: tiles[i].head }));
  strip.root.classList.add("attnviz-overlay-strip");
  const legend = make(left, "div", "attnviz-legend");
  make(legend, "span", "", "weight 0");
  const legendCanvas = make(legend, "canvas");
  const legendMax = make(legend, "span");
  const readout = make(left, "div", "attnviz-readout");
  readout.setAttribute("aria-live", "polite");
  const problem = make(left, "div", "attnviz-problem");
  problem.setAttribute("role", "status");
  const table = tableButton(left, root, fillTable);
  const chips = makeChoices(chipLine, "Query", (i) => select({ query: i }));
  for (let i = 0; i < (ofText ? tokens.length : extra); i++) make(chips.add(), "bdi", "", shorten(nameOf(i), LABEL)).title = nameOf(i);
  if (!ofText) make(chipLine, "span", "", extra ? "or click a patch" : "click a patch");

  // --- what is shown --------------------------------------------------------------------------

  const { ask, stop } = questions(model);
  const kept = keepRows(model, ask);
  let shown = null; // { layer, head, query, values }: what the picture shows
  let weights, most, colors; // of the shown head: (key, and behind them what goes to none), the largest on a patch, an image of all patches
  let picture = null, wide = 0, high = 0; // the image; the size of the canvas
  let cursor = null, tiles = []; // the patch pointed at; the small pictures: of the mean (head null), of each head

  function nameOf(query) {
    if (ofText) return tokens[query];
    if (query < extra) return nameOfKey(query);
    return `the patch at ${nameOfKey(query)}`;
  }
  function nameOfKey(key) {
    if (key < extra) return key ? `extra ${key}` : "[CLS]";
    const patch = key - extra;
    return `row ${Math.floor(patch / columns)}, column ${patch % columns}`;
  }
  // What the selection means, where it leaves something open.
  function wanted() {
    const { layer, head, query } = model.get("selection"), one = layer ?? layers.length - 1;
    return { layer: one, head: head !== null && head < layers[one].heads ? head : null, query: query ?? first };
  }
  // One head's weights among the shown rows; of all heads their mean.
  function weightsOf(head) {
    const { values, layer } = shown, heads = layers[layer].heads;
    const before = model.get("one_layer") ? 0 : layers.slice(0, layer).reduce((n, one) => n + one.heads, 0);
    const sum = new Float32Array(across);
    const [from, end] = head === null ? [0, heads] : [head, head + 1];
    for (let h = from; h < end; h++) for (let k = 0; k < across; k++) sum[k] += values[(before + h) * across + k];
    return sum.map((x) => x / (end - from) / 65535);
  }
  const patchesOf = (all) => all.subarray(extra, nKeys);
  const largest = (all) => patchesOf(all).reduce((a, b) => Math.max(a, b), 0);
  const colorsOf = (all, top) => paint(patchesOf(all), rows, columns, palette, (x) => x / (top || 1));

  // Show what is selected; where its rows are not here, ask for them, and show the last ones until then.
  function follow() {
    const want = wanted(), values = kept.of(want);
    if (values) {
      problem.textContent = "";
      show({ ...want, values });
      return;
    }
    const last = shown ?? { ...kept.first, values: kept.of(kept.first) };
    const layer = model.get("one_layer") ? last.layer : want.layer;
    show({ ...want, query: last.query, layer, head: want.head !== null && want.head < layers[layer].heads ? want.head : null, values: last.values });
    kept.load(want).then((came) => { if (came && kept.alike(want, wanted())) follow(); },
      (error) => { if (kept.alike(want, wanted())) problem.textContent = error.message; });
  }
  function show(next) {
    shown = next;
    weights = weightsOf(shown.head);
    most = largest(weights);
    colors = colorsOf(weights, most);
    layerBox.value = shown.layer;
    chips.check(ofText || shown.query < extra ? shown.query : -1);
    legendMax.textContent = `${digits(most)}, the row’s largest patch`;
    writeQuestion();
    drawStrip();
    draw();
    table.refresh();
  }

  // --- the picture ----------------------------------------------------------------------------

  function layOut() {
    const room = Math.max(120, (root.clientWidth || 720) - 12);
    const scale = Math.min(WIDEST / width, HIGHEST / height, room / width);
    [wide, high] = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    left.style.width = `${Math.min(room, Math.max(wide, TEXT))}px`;
  }
  function draw() {
    const context = sized(canvas, wide, high);
    drawOverlay(context, picture, colors, wide, high, model.get("strength"));
    const { key } = model.get("selection");
    if (!ofText && shown.query >= extra) frame(context, shown.query - extra, [], 2.5);
    if (key !== null && key >= extra && key < nKeys) frame(context, key - extra, [2, 3], 2);
    if (cursor !== null) frame(context, cursor, [6, 4], 1.5);
    writeReadout();
  }
  // A frame around a patch: white on black, so that it shows on every colour.
  function frame(context, patch, dashes, line) {
    const row = Math.floor(patch / columns), column = patch % columns;
    const [x, end] = [column, column + 1].map((i) => clamp((i * wide) / columns, 2, wide - 2)); // whole at the edges, too
    const [y, low] = [row, row + 1].map((i) => clamp((i * high) / rows, 2, high - 2));
    for (const [color, more, dash] of [["#000", 2, []], ["#fff", 0, dashes]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: line + more });
      context.setLineDash(dash);
      context.strokeRect(x, y, end - x, low - y);
    }
    context.setLineDash([]);
  }
  function drawStrip() {
    const { heads } = layers[shown.layer], mean = heads > 1 ? [null] : [];
    if (tiles.length !== mean.length + heads) {
      strip.clear();
      tiles = [...mean, ...Array(heads).keys()].map(addTile);
    }
    const scale = TILE / Math.max(width, height);
    const [w, h] = [width, height].map((side) => Math.max(4, Math.round(side * scale)));
    for (const tile of tiles) {
      const all = weightsOf(tile.head), top = largest(all);
      drawOverlay(sized(tile.canvas, w, h), picture, colorsOf(all, top), w, h, model.get("strength"));
      tile.name.textContent = tile.head === null ? `mean of ${heads}` : `head ${tile.head}`;
      tile.most.textContent = `max ${digits(top)}`;
    }
    strip.check(shown.head === null ? 0 : shown.head + mean.length);
  }
  function addTile(head) {
    const button = strip.add();
    return { head, canvas: make(button, "canvas"), name: make(button, "span"), most: make(button, "span", "attnviz-overlay-most") };
  }

  // --- the words ------------------------------------------------------------------------------

  function writeQuestion() {
    const { layer, head, query } = shown, { heads } = layers[layer];
    question.textContent = "What does ";
    makeToken(question, nameOf(query));
    const which = head !== null ? `head ${head}` : heads > 1 ? `mean of its ${heads} heads` : "its one head";
    question.append(` look at? Layer ${layer}, ${which}`);
  }
  function writeReadout() {
    const { key } = model.get("selection");
    const at = cursor !== null ? extra + cursor : key !== null && key < nKeys ? key : null;
    readout.replaceChildren();
    if (at === null) readout.textContent = hint;
    else {
      make(readout, "b", "attnviz-value", `${nameOfKey(at)}: ${digits(weights[at])}`);
      make(readout, "span", "attnviz-place", ` key ${at}`);
    }
    if (extra || layers[shown.layer].sinks) make(readout, "div", "attnviz-overlay-rest", rest());
  }
  // Where the weight goes that the picture cannot show.
  function rest() {
    const others = Array.from({ length: extra }, (_, i) => `${nameOfKey(i)} gets ${digits(weights[i])}`);
    const patches = patchesOf(weights).reduce((a, b) => a + b, 0);
    const said = [...others, `all patches together ${digits(patches)}`];
    if (layers[shown.layer].sinks) said.push(toNoKey(weights[nKeys]));
    return said.join(", ");
  }
  function fillTable(node) {
    const order = Array.from({ length: nPatches }, (_, i) => extra + i).sort((a, b) => weights[b] - weights[a] || a - b);
    const some = order.slice(0, MOST_ROWS);
    const which = some.length < nPatches ? `the ${some.length} largest of ${nPatches} patches` : "all patches, the largest first";
    writeTable(node, `${question.textContent}: ${which}`, ["key", "patch", "weight"],
      some.map((key) => [key, nameOfKey(key), digits(weights[key])]), 1);
  }

  // --- the reader -----------------------------------------------------------------------------

  function set(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }
  const select = (some) => set({ selection: { ...model.get("selection"), ...some } });
  const mark = (key) => select({ key: key === model.get("selection").key ? null : key });
  const choose = (patch) => (ofText ? mark(extra + patch) : select({ query: extra + patch }));

  function patchAt(event) {
    const column = clamp(Math.floor((event.offsetX / wide) * columns), 0, columns - 1);
    return clamp(Math.floor((event.offsetY / high) * rows), 0, rows - 1) * columns + column;
  }
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  // Where the keyboard stands before its first step: the patch that asks, or the middle.
  const standing = () =>
    !ofText && shown.query >= extra ? shown.query - extra : Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  function walk(down, right) {
    if (cursor === null) cursor = standing(); // the first key press shows it
    else {
      const row = clamp(Math.floor(cursor / columns) + down, 0, rows - 1);
      cursor = row * columns + clamp((cursor % columns) + right, 0, columns - 1);
    }
    draw();
  }
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) walk(...steps[event.key]);
    else if (event.key === "Enter") choose(cursor ?? standing());
    else if (event.key === " ") mark(extra + (cursor ?? standing()));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  function onEscape(event) {
    const { query, key } = model.get("selection");
    if (event.key !== "Escape" || (cursor === null && query === null && key === null)) return; // the view around may want it
    event.preventDefault();
    event.stopPropagation();
    point(null);
    select({ query: null, key: null });
  }
  const point = (patch) => {
    if (cursor === patch) return;
    cursor = patch;
    draw();
  };
  canvas.addEventListener("pointermove", (event) => point(patchAt(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("click", (event) => (event.shiftKey ? mark(extra + patchAt(event)) : choose(patchAt(event))));
  canvas.addEventListener("keydown", onKey);
  root.addEventListener("keydown", onEscape);
  layerBox.addEventListener("change", () => select({ layer: Number(layerBox.value) }));
  slider.addEventListener("input", () => set({ strength: Number(slider.value) }));

  // --- from the model ---------------------------------------------------------------------------

  const write = () => {
    title.textContent = model.get("title");
    slider.value = model.get("strength");
    strengthText.textContent = model.get("strength").toFixed(2);
    drawLegend(legendCanvas, palette, model.get("strength"));
  };
  const redraw = soon(() => { write(); drawStrip(); draw(); });
  const changed = soon(follow);
  model.on("change:title change:strength", redraw.later);
  model.on("change:selection", changed.later);
  let lastWidth = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === lastWidth) return;
    lastWidth = root.clientWidth;
    layOut();
    draw();
  });

  write();
  layOut();
  follow();
  resized.observe(root);
  createImageBitmap(new Blob([model.get("picture")], { type: "image/png" })).then(
    (bitmap) => { picture = bitmap; redraw.later(); },
    (error) => { problem.textContent = `The image cannot be shown: ${error.message}`; });
  return () => {
    redraw.cancel();
    changed.cancel();
    resized.disconnect();
    stop();
    model.off("change:title change:strength", redraw.later);
    model.off("change:selection", changed.later);
  };
}

export default { render };
