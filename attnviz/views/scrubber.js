// A head while a model trains: a slider over saved steps, under the curve of the loss.
import { clamp, largestOf, make, makeButton, onTheme, questions, readFloats, readRoots, soon } from "./common.js";
import { makeMatrix } from "./matrix.js";

const PACE = 200; // milliseconds that a step is shown while it plays
const HIGH = 76, INSET = 8, MARK = 4; // CSS pixels: the curve, half of the slider's thumb, the radius of the mark
const MARGIN = 5, FOOT = 6; // above and below the curve; a snapshot's tick

const inWords = (loss) => (loss !== 0 && (Math.abs(loss) < 0.001 || Math.abs(loss) >= 1e4) ? loss.toExponential(2) : loss.toFixed(3));

// The curve of the loss, with the step that is shown. choose(step): the reader points at a step on it.
function makeCurve(parent, { points, end, steps, choose }) {
  const root = make(parent, "div", "attnviz-scrubber-curve");
  const xs = points.filter((_, i) => i % 2 === 0), ys = points.filter((_, i) => i % 2 === 1);
  const low = -largestOf(ys.map((y) => -y), -Infinity), high = largestOf(ys, -Infinity), last = Math.max(end, steps.at(-1), 1);
  const axis = make(root, "div", "attnviz-scrubber-axis");
  for (const text of [inWords(high), "loss", inWords(low)]) make(axis, "span", "", text);
  const canvas = make(root, "canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `The loss, from ${inWords(ys[0])} to ${inWords(ys.at(-1))} after ${end} steps`);
  const foot = make(root, "div", "attnviz-scrubber-ends");
  for (const text of ["0", "training steps", last]) make(foot, "span", "", text);

  let width = 0, shown = { step: 0, loss: null };
  const xOf = (step) => INSET + (step / last) * (width - 2 * INSET);
  const yOf = (loss) => MARGIN + (high > low ? (high - loss) / (high - low) : 0.5) * (HIGH - 2 * MARGIN - FOOT);
  function draw(now = shown) {
    shown = now;
    width = canvas.clientWidth;
    const dpr = window.devicePixelRatio || 1, context = canvas.getContext("2d"), style = getComputedStyle(root);
    const color = (name) => style.getPropertyValue(`--attnviz-${name}`).trim();
    Object.assign(canvas, { width: Math.round(width * dpr), height: HIGH * dpr });
    context.setTransform(dpr, 0, 0, dpr, 0, 0);
    const line = (ends, look) => {
      Object.assign(context, look);
      context.beginPath();
      for (const [x, y] of ends) context.lineTo(x, y);
      context.stroke();
    };
    for (const step of steps) line([[xOf(step), HIGH - FOOT], [xOf(step), HIGH]], { strokeStyle: color("quiet"), lineWidth: 1 });
    line(Array.from(xs, (x, i) => [xOf(x), yOf(ys[i])]), { strokeStyle: color("quiet"), lineWidth: 1.5, lineJoin: "round" });
    line([[xOf(shown.step), 0], [xOf(shown.step), HIGH]], { strokeStyle: color("accent"), lineWidth: 2 });
    if (shown.loss === null) return;
    context.fillStyle = color("accent");
    context.beginPath();
    context.arc(xOf(shown.step), yOf(shown.loss), MARK, 0, 2 * Math.PI);
    context.fill();
  }
  canvas.addEventListener("click", (event) => choose(((event.offsetX - INSET) / (width - 2 * INSET)) * last));
  return { draw };
}

function render({ model, el }) {
  const steps = model.get("steps"), losses = model.get("losses"), layers = model.get("layers");
  const root = make(el, "div", "attnviz attnviz-scrubber");
  const title = make(root, "div", "attnviz-title");
  const chooser = make(root, "div", "attnviz-foot");
  const chooseOne = (name) => make(make(chooser, "label", "", name), "select");
  const layerBox = chooseOne("layer"), headBox = chooseOne("head");
  layers.forEach(({ name }, i) => { make(layerBox, "option", "", name ? `${i}: ${name}` : i).value = i; });
  const time = make(root, "div", "attnviz-scrubber-time");
  const { points, end } = model.get("curve");
  const curve = points && makeCurve(time, { points: readFloats(points), end, steps, choose: (step) => { pause(); go(nearest(step)); } });
  const slider = make(time, "input");
  Object.assign(slider, { type: "range", min: 0, max: steps.length - 1, step: 1 });
  slider.dataset.lmSuppressShortcuts = "true";
  slider.setAttribute("aria-label", "training step");
  const said = make(time, "div", "attnviz-foot attnviz-scrubber-said");
  const playButton = makeButton(said, "Play", () => (timer ? pause() : play()));
  playButton.disabled = steps.length === 1;
  const stepText = make(said, "b"), lossText = make(said, "span");

  const { ask, stop } = questions(model);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const select = (some) => set({ selection: { ...model.get("selection"), ...some } });
  const matrix = makeMatrix(root, {
    ask: (question) => ask({ ...question, of: [open.layer, open.head], at: index() }),
    select,
    setColors: set,
  });

  // --- the step ---------------------------------------------------------------------------------

  let timer = 0; // while it plays
  const index = () => Math.max(0, steps.indexOf(model.get("step")));
  const go = (i) => set({ step: steps[clamp(i, 0, steps.length - 1)] });
  const nearest = (step) => steps.reduce((best, one, i) => (Math.abs(one - step) < Math.abs(steps[best] - step) ? i : best), 0);
  function play() {
    if (index() === steps.length - 1) go(0);
    timer = setInterval(() => {
      go(index() + 1);
      if (index() === steps.length - 1) pause();
    }, PACE);
    playButton.textContent = "Pause";
  }
  function pause() {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    playButton.textContent = "Play";
    showStep.later(); // in full detail
  }
  function writeStep() {
    const i = index(), loss = losses[i], text = `step ${steps[i]} of ${steps.at(-1)}`;
    slider.value = i;
    stepText.textContent = text;
    lossText.textContent = loss === null ? "" : `loss ${inWords(loss)}`;
    slider.setAttribute("aria-valuetext", loss === null ? text : `${text}, ${lossText.textContent}`);
    curve?.draw({ step: steps[i], loss });
  }

  // --- the head ---------------------------------------------------------------------------------

  let open = null, asked = 0; // the head that is shown: its place, and its numbers at all steps
  function take(layer, head, { rows, columns, exact, values }) {
    open = { layer, head, rows, columns, exact, values };
    const size = rows * columns; // behind the cells of a step may stand what goes to no key
    const largestAt = ({ values: at }) => largestOf((exact ? readFloats(at) : readRoots(at)).subarray(0, size), 0);
    open.most = Math.max(...steps.map((_, i) => largestAt(cellsAt(i)))) || 1;
    show();
  }
  function cellsAt(i) {
    const { rows, columns, exact, values } = open, size = values.byteLength / steps.length;
    return { rows, columns, exact, values: new DataView(values.buffer, values.byteOffset + i * size, size) };
  }
  function show() {
    writeStep();
    if (!open) return;
    const i = index();
    matrix.show({
      title: `layer ${open.layer}, head ${open.head} after ${steps[i]} ${steps[i] === 1 ? "step" : "steps"}`,
      queries: model.get("query_tokens"),
      keys: model.get("key_tokens"),
      cells: cellsAt(i),
      most: open.most, // at any step: the colours mean the same weights at all of them
      provisional: timer !== 0 || !model.get("live"),
      palette: model.get("palette"),
    });
    matrix.pin(model.get("selection"));
  }
  function chosen() {
    const { layer, head } = model.get("selection");
    return layer === null || head === null ? { layer: open?.layer ?? 0, head: open?.head ?? 0 } : { layer, head };
  }
  async function openHead() {
    const { layer, head } = chosen(), number = ++asked, cells = model.get("cells");
    layerBox.value = layer;
    if (headBox.length !== layers[layer].heads) {
      headBox.replaceChildren();
      for (let i = 0; i < layers[layer].heads; i++) make(headBox, "option", "", i).value = i;
    }
    headBox.value = head;
    if (open?.layer === layer && open.head === head) { matrix.pin(model.get("selection")); return; } // perhaps another query
    if (layer === 0 && head === 0 && cells.values) { take(0, 0, cells); return; }
    try {
      const { answer, buffers } = await ask({ open: [layer, head] });
      if (number === asked) take(layer, head, { ...answer, values: buffers[0] });
    } catch (error) {
      if (number === asked) matrix.problem.textContent = error.message;
    }
  }

  // --- the reader, and the model ------------------------------------------------------------------

  const choose = (layer, head) => select({ layer, head: Math.min(head, layers[layer].heads - 1) });
  layerBox.addEventListener("change", () => choose(Number(layerBox.value), chosen().head));
  headBox.addEventListener("change", () => choose(chosen().layer, Number(headBox.value)));
  slider.addEventListener("input", () => { pause(); go(Number(slider.value)); });
  const writeTitle = () => { title.textContent = model.get("title"); };
  const color = () => matrix.setColors(model.get("scale"), model.get("threshold"));
  const showStep = soon(show);
  const drawCurve = () => curve?.draw();
  const resized = new ResizeObserver(drawCurve);
  const stopTheme = onTheme(drawCurve);
  writeTitle();
  writeStep();
  color();
  openHead();
  model.on("change:step", showStep.later);
  model.on("change:selection", openHead);
  model.on("change:title", writeTitle);
  model.on("change:scale change:threshold", color);
  resized.observe(time);
  return () => {
    clearInterval(timer);
    asked += 1;
    showStep.cancel();
    matrix.remove();
    resized.disconnect();
    stopTheme();
    stop();
    model.off("change:step", showStep.later);
    model.off("change:selection", openHead);
    model.off("change:title", writeTitle);
    model.off("change:scale change:threshold", color);
  };
}

export default { render };
