// Attention weights taken apart: query times key in each dimension, the score, the mask, the softmax.
import { asNumber, asWord, clamp, LABEL, make, makeToken, onTheme, questions, READ, readFloats, soon, tableButton, takesKeys, toNoKey, writeTable } from "./common.js";
import { shorten, visible } from "./visible.js";

const LINE = 28, LABELS = [120, 168], NUMBER = 56, WEIGHT = 104, BETWEEN = 12, EDGE = 6, SCROLLBAR = 16; // CSS pixels
const DIMENSION = [1, 24], NARROWEST = 96, TOKEN_LINE = 25; // the width of a dimension; of a column of vectors
const NEIGHBOURS = 96; // tokens to choose the query from, around the one that is chosen
const POINT_AT = "Point at a key or at a bar, or focus the keys and use the arrow keys: up and down for the key, left and right for the dimension. Click or Enter selects a key, Esc lets it go.";

// A number for the reader: so many places, or a power of ten where these would say too little.
function say(x, places = 2) {
  if (!Number.isFinite(x)) return asWord(x);
  const size = Math.abs(x), tiny = size > 0 && size < 0.5 * 10 ** -places;
  return (tiny || size >= 1e6 ? x.toExponential(1) : x.toFixed(places)).replace("e+", "e").replaceAll("-", "−");
}
const count = (n) => n.toLocaleString("en");
const inBrackets = (text) => (text.startsWith("−") ? `(${text})` : text);

function readScores({ query, keys, log_sum: logSum, changed, masked, rest }, buffers) {
  const [q, k, dots, bias, softmax, weights] = buffers.map(readFloats);
  const d = q.length, products = k.map((x, i) => x * q[i % d]);
  return { query, keys, logSum: asNumber(logSum), changed, masked, rest, d, q, k, products, dots, bias, softmax, weights };
}
const largestSize = (values) => values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-scores");
  const title = make(root, "div", "attnviz-title");
  const chooser = make(root, "div", "attnviz-chooser");
  const boxLabel = make(chooser, "label", "", "query");
  const box = make(boxLabel, "input"); // a number: a list of thousands of tokens would be slow
  box.dataset.lmSuppressShortcuts = "true";
  make(boxLabel, "span", "", `from 0 to ${count(model.get("query_tokens").length - 1)}`);
  make(chooser, "span", "attnviz-place", model.get("place"));
  const strip = make(root, "div", "attnviz-tokens");
  const problem = make(root, "div", "attnviz-problem");
  problem.setAttribute("role", "status");
  const notice = make(root, "div", "attnviz-notice");
  const summary = make(root, "div", "attnviz-place attnviz-summary");
  const formula = make(root, "div", "attnviz-place attnviz-summary");
  const scroll = make(root, "div", "attnviz-scroll");
  const plot = make(scroll, "div", "attnviz-plot");
  const head = make(plot, "div", "attnviz-head");
  const names = make(head, "div", "attnviz-line attnviz-names");
  const queryLine = make(head, "div", "attnviz-line attnviz-query");
  const queryCanvas = make(head, "canvas", "attnviz-query-bars");
  const body = make(plot, "div", "attnviz-keys");
  const canvas = make(body, "canvas", "attnviz-bars");
  const lines = make(body, "div");
  const bands = [head, body, body].map((parent) => make(parent, "div", "attnviz-band")); // over q, k and q ∘ k
  const readout = make(root, "div", "attnviz-readout");
  readout.setAttribute("aria-live", "polite");
  const foot = make(root, "div", "attnviz-foot");
  const legend = make(foot, "span", "attnviz-legend");
  for (const [name, sign] of [["plus", "▲"], ["minus", "▼"]]) {
    make(legend, "span", `attnviz-${name}`, sign);
    make(legend, "span", "", name === "plus" ? "positive" : "negative");
  }
  const tallest = make(legend, "span");
  const table = tableButton(foot, root, fillTable);
  takesKeys(strip, "Tokens. Left and right arrows choose the query.");
  takesKeys(body, "Keys. Up and down arrows choose a key, left and right a dimension, Enter selects a key, Escape lets it go.");

  const { ask, stop } = questions(model);
  const [queries, keys] = ["query_tokens", "key_tokens"].map((name) => model.get(name).map(visible)), scale = asNumber(model.get("scale"));
  let shown = readScores(model.get("row"), model.get("row").buffers);
  let marked = null, dimension = null; // a line of the keys, and a dimension, that the reader points at
  let size, left, columns; // the width of a dimension and where the vectors begin; the columns of numbers
  let drawn = null, listed = null; // the row that is drawn, and the query whose neighbours are listed
  let asking = false, removed = false;

  const scaled = (i) => shown.dots[i] * scale;
  const isMasked = (i) => shown.bias[i] === -Infinity;
  const isBiased = () => shown.bias.some((x) => x !== 0 && x !== -Infinity);
  const lineOf = (key) => (key === null ? -1 : shown.keys.indexOf(key));
  const current = () => marked ?? (lineOf(model.get("selection").key) < 0 ? null : lineOf(model.get("selection").key));

  // --- which row is shown ---------------------------------------------------------------------

  function select(values) {
    model.set("selection", { ...model.get("selection"), ...values });
    model.save_changes();
  }
  const wantedQuery = () => model.get("selection").query ?? shown.query;
  // What to ask for, or null when what is selected is here.
  function missing() {
    const { key } = model.get("selection"), query = wantedQuery();
    if (shown.query !== query) return { query };
    return key === null || shown.keys.includes(key) ? null : { query, key };
  }
  async function follow() {
    const held = model.get("row");
    problem.textContent = "";
    title.textContent = model.get("title");
    if (missing()?.query === held.query) shown = readScores(held, held.buffers);
    showSelection();
    const question = missing();
    if (!question || asking) return; // whoever asks looks again when the answer is here
    asking = true;
    let failed = null;
    try {
      const { answer, buffers } = await ask(question);
      if (missing()) shown = readScores(answer, buffers); // or Python has sent it already, as the selected row
    } catch (error) { failed = error; }
    asking = false;
    if (removed) return;
    const next = missing();
    if (!failed) showSelection();
    if (next && JSON.stringify(next) !== JSON.stringify(question)) follow();
    else if (failed && next) problem.textContent = `${"key" in next ? `Key ${next.key} is not among the keys shown. ` : ""}${failed.message}`;
  }

  // --- the picture ----------------------------------------------------------------------------

  function showSelection() {
    if (listed !== wantedQuery()) writeTokens();
    if (drawn !== shown) showRow();
    else pointAt();
    reveal(lineOf(model.get("selection").key));
    table.refresh();
  }
  function showRow() {
    drawn = shown;
    if (marked !== null && marked >= shown.keys.length) marked = null;
    writeSummary();
    columns = numberColumns();
    layOut();
    writeLines();
    drawBars();
    pointAt();
  }

  // The columns of numbers: a name, what it means, and the text for each line.
  function numberColumns() {
    const biased = isBiased();
    const all = [
      ["q·k", "the sum of the products", (i) => say(shown.dots[i])],
      [`× ${scaleText()}`, "the score: q·k times the scale", (i) => say(scaled(i))],
    ];
    if (shown.bias.some((x) => x !== 0)) all.push([biased ? "+ bias" : "mask", "what is added to the score", (i) => (isMasked(i) ? "masked" : biased ? say(shown.bias[i]) : "")]);
    if (shown.changed) all.push(["softmax", "what the softmax made of the scores", (i) => say(shown.softmax[i], 3)]);
    return all;
  }
  const scaleText = () => (Number.isFinite(scale) ? String(Number(scale.toPrecision(3))) : asWord(scale));

  function writeTokens() {
    const at = listed = wantedQuery(), first = clamp(at - NEIGHBOURS / 2, 0, Math.max(0, queries.length - NEIGHBOURS));
    const end = Math.min(queries.length, first + NEIGHBOURS);
    box.value = at;
    strip.replaceChildren();
    if (first > 0) make(strip, "span", "attnviz-place", "… ");
    let chosen;
    for (let i = first; i < end; i++) {
      const token = make(strip, "span", "attnviz-token", shorten(queries[i], LABEL));
      token.dataset.query = i;
      token.title = token.textContent === queries[i] ? `query ${i}` : `query ${i} ${queries[i]}`;
      if (i === at) chosen = token;
    }
    if (end < queries.length) make(strip, "span", "attnviz-place", " …");
    chosen.classList.add("attnviz-current");
    chosen.setAttribute("aria-current", "true");
    requestAnimationFrame(() => { strip.scrollTop = chosen.offsetTop - 1.2 * TOKEN_LINE; }); // a line above it stays in sight
  }

  function writeSummary() {
    const n = keys.length, sum = shown.weights.reduce((a, b) => a + b, 0), held = model.get("held");
    const parts = [shown.keys.length < n ? `${count(shown.keys.length)} of ${count(n)} keys shown, ${sum.toFixed(2)} of the weight` : `all ${count(n)} keys shown`];
    if (shown.masked) parts.push(`${count(shown.masked)} masked out`);
    if (shown.rest !== null) parts.push(toNoKey(shown.rest));
    if (held.length) parts.push(`this page holds the queries ${count(held[0])} to ${count(held[1])}`);
    summary.textContent = parts.join(" · ");
    const z = shown.logSum === null ? null : say(shown.logSum, 3);
    formula.textContent = z === null ? "" :
      `score = q·k × ${scaleText()}${isBiased() ? " + bias" : ""} · softmax = exp(score − ${inBrackets(z)}), as exp(score) adds up to exp(${z}) over all keys${shown.rest === null ? "" : " and the sinks"}`;
    const off = largestSize(shown.weights.map((w, i) => w - shown.softmax[i]));
    notice.textContent =
      shown.logSum === null ? "This query may attend to nothing: all its keys are masked out."
      : shown.changed === "edit" ? "An edit changed this row after the softmax: the weights are the edited ones."
      : shown.changed === "other" ? `The model's own weights are off the softmax of these scores, by up to ${say(off, 3)}: rounded, or changed afterwards.`
      : "";
  }

  function layOut() {
    const label = LABELS[root.clientWidth > 900 ? 1 : 0];
    left = label + BETWEEN;
    const numbers = columns.length * (NUMBER + BETWEEN) + WEIGHT;
    const room = ((root.clientWidth || 900) - left - numbers - 2 * BETWEEN - EDGE - SCROLLBAR) / 2;
    size = clamp(room / shown.d, ...DIMENSION);
    const wide = Math.max(NARROWEST, size * shown.d);
    const widths = [label, wide, wide, ...columns.map(() => NUMBER), WEIGHT];
    plot.style.setProperty("--attnviz-columns", widths.map((w) => `${w}px`).join(" "));
    plot.style.width = `${left + 2 * (wide + BETWEEN) + numbers + EDGE}px`;
    body.style.height = `${LINE * shown.keys.length}px`;
    const setSize = (node, width, height) => {
      const dpr = window.devicePixelRatio || 1;
      Object.assign(node, { width: Math.round(width * dpr), height: Math.round(height * dpr) });
      Object.assign(node.style, { left: `${left}px`, width: `${width}px`, height: `${height}px` });
    };
    setSize(queryCanvas, wide, LINE);
    setSize(canvas, 2 * wide + BETWEEN, LINE * shown.keys.length);
  }
  // Where the second column of vectors begins, in pixels from the first.
  const secondAt = () => Math.max(NARROWEST, size * shown.d) + BETWEEN;

  function writeLines() {
    names.replaceChildren();
    for (const text of ["", "q, below it k", "q ∘ k, sums to"]) make(names, "span", "", text).title = text;
    for (const [name, meaning] of columns) make(names, "span", "attnviz-number", name).title = meaning;
    make(names, "span", "attnviz-number", shown.changed === "edit" ? "edited weight" : "weight");
    queryLine.replaceChildren();
    label(queryLine, `query ${shown.query}`, queries[shown.query]);
    lines.replaceChildren();
    const most = shown.weights.reduce((a, b) => Math.max(a, b), 0) || 1;
    shown.keys.forEach((key, i) => {
      const line = make(lines, "div", "attnviz-line");
      label(line, String(key), keys[key]);
      make(line, "span");
      make(line, "span");
      for (const [, , text] of columns) make(line, "span", "attnviz-number", text(i));
      const weight = make(line, "span", "attnviz-weight");
      make(make(weight, "span", "attnviz-track"), "span").style.width = `${(100 * shown.weights[i]) / most}%`;
      make(weight, "span", "attnviz-number", say(shown.weights[i], 3));
    });
  }
  function label(line, position, token) {
    const node = make(line, "span", "attnviz-key");
    node.title = `${position} ${token}`;
    make(node, "span", "attnviz-place", position);
    make(node, "bdi", "", shorten(token, LABEL));
  }

  // Vectors as bars from a middle line, up for positive numbers; `most` gets the full height.
  function drawBars() {
    const style = getComputedStyle(root), color = (name) => style.getPropertyValue(`--attnviz-${name}`).trim();
    const [plus, minus, quiet] = ["plus", "minus", "quiet"].map(color);
    const { d } = shown, gap = size >= 4 ? 1 : 0;
    const most = [shown.q, shown.k, shown.products].map((x) => largestSize(x) || 1);
    function bars(context, vector, x0, line, highest) {
      const middle = (line + 0.5) * LINE, high = LINE / 2 - 2;
      context.fillStyle = quiet;
      context.fillRect(x0, middle - 0.25, size * d, 0.5);
      for (let i = 0; i < d; i++) {
        if (!vector[i]) continue;
        const tall = Math.max(1, (high * Math.abs(vector[i])) / highest);
        context.fillStyle = vector[i] > 0 ? plus : minus;
        context.fillRect(x0 + i * size + gap / 2, vector[i] > 0 ? middle - tall : middle, size - gap, tall);
      }
    }
    const start = (node) => {
      const context = node.getContext("2d"), dpr = window.devicePixelRatio || 1;
      context.setTransform(dpr, 0, 0, dpr, 0, 0);
      context.clearRect(0, 0, node.width, node.height);
      return context;
    };
    bars(start(queryCanvas), shown.q, 0, 0, most[0]);
    const context = start(canvas);
    shown.keys.forEach((_, i) => {
      context.globalAlpha = isMasked(i) ? 0.35 : 1;
      bars(context, shown.k.subarray(i * d, (i + 1) * d), 0, i, most[1]);
      bars(context, shown.products.subarray(i * d, (i + 1) * d), secondAt(), i, most[2]);
    });
    tallest.textContent = `tallest bars: q ${say(most[0])}, k ${say(most[1])}, q ∘ k ${say(most[2])}`;
  }

  // Scroll the keys, and not the page, to a line.
  function reveal(i) {
    if (i < 0) return;
    const top = i * LINE, room = scroll.clientHeight - head.offsetHeight;
    if (top < scroll.scrollTop || top + LINE > scroll.scrollTop + room) scroll.scrollTop = top - (room - LINE) / 2;
  }

  // --- the words ------------------------------------------------------------------------------

  // Show what the reader points at, or has selected.
  function pointAt() {
    const line = current(), selected = lineOf(model.get("selection").key);
    [...lines.children].forEach((node, i) => {
      node.classList.toggle("attnviz-marked", i === line);
      node.classList.toggle("attnviz-selected", i === selected);
    });
    bands.forEach((band, i) => {
      band.hidden = dimension === null;
      Object.assign(band.style, { left: `${left + (i === 2 ? secondAt() : 0) + (dimension ?? 0) * size}px`, width: `${size}px` });
    });
    readout.replaceChildren();
    if (line === null && dimension === null) readout.textContent = POINT_AT;
    if (line !== null) writeSentence(line);
    if (dimension !== null) writeDimension(line);
  }
  function writeSentence(i) {
    const key = shown.keys[i], name = make(readout, "b", "attnviz-value");
    makeToken(name, queries[shown.query]);
    name.append(" → ");
    makeToken(name, keys[key]);
    make(readout, "span", "attnviz-place", ` query ${shown.query}, key ${key}`);
    make(readout, "div", "attnviz-sentence", sentence(i));
  }
  function sentence(i) {
    const key = shown.keys[i], steps = [`q·k = ${say(shown.dots[i])}`, `× ${scaleText()} = ${say(scaled(i))}`];
    const later = model.get("is_causal") && key > shown.query;
    if (isMasked(i)) steps.push(later ? "masked, as this key comes after the query" : "masked");
    else if (shown.bias[i]) steps.push(`+ ${inBrackets(say(shown.bias[i]))} = ${say(scaled(i) + shown.bias[i])}`);
    if (shown.changed) steps.push(`softmax ${say(shown.softmax[i], 3)}`);
    const step = { edit: "edited to", other: "in the model", "": "softmax" }[shown.changed];
    return `${[...steps, `${step} ${say(shown.weights[i], 3)}`].join(" → ")} of the row`;
  }
  function writeDimension(i) {
    const q = shown.q[dimension], text = `dimension ${dimension}: q = ${say(q, 3)}`;
    if (i === null) { make(readout, "div", "attnviz-dimension", text); return; }
    const at = i * shown.d + dimension;
    make(readout, "div", "attnviz-dimension", `${text}, k = ${say(shown.k[at], 3)}, q × k = ${say(shown.products[at], 3)}`);
  }

  function fillTable(node) {
    const name = `“${shorten(queries[shown.query], READ)}” (query ${shown.query})`, selected = lineOf(model.get("selection").key);
    if (selected < 0) {
      writeTable(node, `What ${name} makes of its keys; select a key for its dimensions`,
        ["position", "key", ...columns.map(([column]) => column), "weight"],
        shown.keys.map((key, i) => [key, keys[key], ...columns.map(([, , text]) => text(i)), say(shown.weights[i], 3)]), 1);
      return;
    }
    const key = shown.keys[selected], start = selected * shown.d;
    const rows = Array.from(shown.q, (q, i) => [i, say(q, 3), say(shown.k[start + i], 3), say(shown.products[start + i], 3)]);
    writeTable(node, `${name} and “${shorten(keys[key], READ)}” (key ${key}), dimension by dimension: ${sentence(selected)}`,
      ["dimension", "q", "k", "q × k"], [...rows, ["sum", "", "", say(shown.dots[selected], 3)]], 0);
  }

  // --- the reader -----------------------------------------------------------------------------

  function onMove(event) {
    const { left: x0 } = plot.getBoundingClientRect(), { top: y0 } = body.getBoundingClientRect();
    const x = event.clientX - x0 - left, at = Math.floor((x >= secondAt() ? x - secondAt() : x) / size);
    marked = head.contains(event.target) ? null : clamp(Math.floor((event.clientY - y0) / LINE), 0, shown.keys.length - 1);
    dimension = x >= 0 && at >= 0 && at < shown.d ? at : null;
    pointAt();
  }
  const leave = () => { marked = dimension = null; pointAt(); };
  function toggle(line) {
    const key = shown.keys[line];
    select({ query: shown.query, key: model.get("selection").key === key ? null : key });
  }
  function walk(down, right) {
    const line = current();
    if (down) marked = line === null ? 0 : clamp(line + down, 0, shown.keys.length - 1); // the first key press shows where it stands
    if (right) dimension = dimension === null ? 0 : clamp(dimension + right, 0, shown.d - 1);
    pointAt();
    if (down) lines.children[marked].scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const mine = (event) => { event.preventDefault(); event.stopPropagation(); };
  body.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) walk(...steps[event.key]);
    else if (event.key === "Enter" || event.key === " ") toggle(current() ?? 0);
    else if (event.key === "Escape") {
      if (current() === null && dimension === null) return; // the view around may want it
      leave();
      select({ key: null });
    } else return;
    mine(event);
  });
  body.addEventListener("click", () => { if (marked !== null) toggle(marked); });
  body.addEventListener("blur", leave);
  plot.addEventListener("pointermove", onMove);
  plot.addEventListener("pointerleave", leave);
  strip.addEventListener("click", (event) => {
    const token = event.target.closest("[data-query]");
    if (token) select({ query: Number(token.dataset.query) });
  });
  const jumps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity };
  strip.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in jumps)) return;
    select({ query: clamp(wantedQuery() + jumps[event.key], 0, queries.length - 1) });
    mine(event);
  });
  Object.assign(box, { type: "number", min: 0, max: queries.length - 1, step: 1 });
  function readNumber() {
    const query = Math.round(box.valueAsNumber);
    if (query >= 0 && query < queries.length) select({ query });
    else box.value = wantedQuery();
  }
  box.addEventListener("change", readNumber);
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return; // JupyterLab would take it
    readNumber();
    mine(event);
  });

  const draw = soon(follow);
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    showRow();
  });
  resized.observe(root);
  const stopTheme = onTheme(drawBars);
  model.on("change:selection change:row change:title", draw.later);
  draw.now();
  return () => {
    removed = true;
    draw.cancel();
    resized.disconnect();
    stopTheme();
    stop();
    model.off("change:selection change:row change:title", draw.later);
  };
}

export default { render };
