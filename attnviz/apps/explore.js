// A model to play with: its text, its heads, what it says, and one head before and after.
import { make, makeButton, questions, readFloats, soon } from "../views/common.js";
import { listHeads, makeGrid } from "../views/grid.js";
import { makeMatrix } from "../views/matrix.js";

const TYPING = 150; // milliseconds without a key before the model reads
const HEAT = 100; // steps of the temperature slider on either side of 1
const GRID_HINT = "Each square is a head. Click or Enter opens one.";

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-explore");
  make(root, "div", "attnviz-title", model.get("title"));
  const texts = make(root, "div", "attnviz-texts");
  const problem = make(root, "div", "attnviz-problem");
  problem.setAttribute("role", "alert");
  const beside = make(root, "div", "attnviz-beside");
  const overview = make(beside, "div", "attnviz-overview");
  const { ask, stop } = questions(model);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };

  // --- the texts ------------------------------------------------------------------------------

  const fields = {};
  let typing = 0;
  for (const [name, label] of [["text", "text"], ["other", "second text"]]) {
    const id = `attnviz-${name}-${Math.random().toString(36).slice(2)}`;
    const tag = make(texts, "label", "", label);
    tag.htmlFor = id;
    const field = make(texts, "input");
    Object.assign(field, { id, type: "text", value: model.get(name), spellcheck: false });
    field.dataset.lmSuppressShortcuts = "true";
    field.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => set({ [name]: field.value }), TYPING);
    });
    fields[name] = { tag, field };
  }
  function showTexts() {
    for (const [name, { field }] of Object.entries(fields)) {
      if (document.activeElement !== field && field.value !== model.get(name)) field.value = model.get(name);
    }
    const compares = model.get("kind") === "similarity";
    fields.other.tag.hidden = fields.other.field.hidden = !compares;
  }

  // --- the heads ------------------------------------------------------------------------------

  const tools = make(overview, "div", "attnviz-foot");
  const undo = makeButton(tools, "Undo all edits", () => set({ edits: [] }));
  const grid = makeGrid(overview, {
    label: "All heads. Arrow keys move, Enter opens a head.",
    choose: (one, byKey) => {
      set({ selection: { ...model.get("selection"), layer: one.layer, head: one.head } });
      if (byKey) offBox.focus();
    },
    point: (one) => { hint.textContent = one ? `layer ${one.layer}, head ${one.head} ${editOf(one) ? `(${describe(editOf(one))}) ` : ""}${model.get("names")[one.layer]}` : GRID_HINT; },
  });
  const hint = make(overview, "div", "attnviz-readout", GRID_HINT);
  hint.setAttribute("aria-live", "polite");
  const box = make(overview, "fieldset", "attnviz-head-box");
  const boxTitle = make(box, "legend");
  const boxFoot = make(box, "div", "attnviz-foot");
  const offLabel = make(boxFoot, "label");
  const offBox = make(offLabel, "input");
  offBox.type = "checkbox";
  offBox.dataset.lmSuppressShortcuts = "true";
  offLabel.append("switch off");
  const heatLabel = make(boxFoot, "label", "", "temperature");
  const heat = make(heatLabel, "input");
  Object.assign(heat, { type: "range", min: -HEAT, max: HEAT, step: 1, value: 0, title: "below 1 sharpens the weights, above 1 flattens them" });
  heat.dataset.lmSuppressShortcuts = "true";
  const heatText = make(heatLabel, "span");
  const says = make(overview, "div", "attnviz-says");
  says.setAttribute("aria-live", "polite");

  const editOf = ({ layer, head }) => model.get("edits").find((e) => e.layer === layer && e.head === head);
  const describe = (edit) => (edit.off ? "off" : `temperature ${edit.temperature.toFixed(2)}`);
  const place = () => ({ layer: model.get("selection").layer ?? 0, head: model.get("selection").head ?? 0 });
  function changeHead(edit) {
    const { layer, head } = place(), others = model.get("edits").filter((e) => e.layer !== layer || e.head !== head);
    set({ edits: edit ? [...others, { layer, head, ...edit }] : others });
  }
  offBox.addEventListener("change", () => changeHead(offBox.checked ? { off: true } : null));
  let heating = 0;
  const heatOf = () => 10 ** (Number(heat.value) / HEAT);
  heat.addEventListener("input", () => {
    heatText.textContent = heatOf().toFixed(2);
    clearTimeout(heating);
    heating = setTimeout(() => changeHead(Number(heat.value) ? { temperature: heatOf() } : null), TYPING);
  });
  function showEdits() {
    const edit = editOf(place()), { layer, head } = place();
    boxTitle.textContent = `layer ${layer}, head ${head}`;
    offBox.checked = Boolean(edit?.off);
    heat.disabled = Boolean(edit?.off);
    const t = edit?.temperature ?? 1;
    if (document.activeElement !== heat) heat.value = Math.round(HEAT * Math.log10(t));
    heatText.textContent = t.toFixed(2);
    undo.disabled = !model.get("edits").length;
    grid.mark(model.get("edits").map((e) => ({ ...e, text: e.off ? "off" : `÷${Number(e.temperature.toPrecision(2))}` })));
  }

  // --- one head -------------------------------------------------------------------------------

  const right = make(beside, "div", "attnviz-one");
  const which = make(right, "div", "attnviz-which");
  let shown = "after", cells = null, of = null, asked = 0;
  const tabs = Object.fromEntries(["before", "after", "difference"].map((name) => [name, makeButton(which, name, () => { shown = name; showCells(); })]));
  const matrix = makeMatrix(right, {
    ask: (question) => {
      if (shown === "difference") throw new Error("A difference of long texts cannot be seen more closely.");
      return ask({ ...question, of, which: shown });
    },
    select: ({ query, key }) => set({ selection: { ...model.get("selection"), query, key } }),
    setColors: ({ scale, threshold }) => { colors = [scale, threshold]; matrix.setColors(...colors); },
  });
  let colors = ["linear", 0];
  function difference() {
    const [before, after] = [readFloats(cells.before.values), readFloats(cells.after.values)];
    return after.map((weight, i) => weight - before[i]);
  }
  function showCells() {
    for (const [name, tab] of Object.entries(tabs)) tab.setAttribute("aria-pressed", String(name === shown));
    if (!cells) return;
    const common = { title: `layer ${of[0]}, head ${of[1]}: ${shown}`, queries: model.get("tokens"), keys: model.get("tokens") };
    if (shown === "difference") {
      const values = difference(), most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 0.001;
      const bytes = new DataView(values.buffer);
      matrix.show({ ...common, cells: { ...cells.before, values: bytes }, palette: model.get("diverging"), range: [-most, most] });
    } else matrix.show({ ...common, cells: cells[shown], palette: model.get("palette") });
    matrix.setColors(...colors);
    matrix.pin(model.get("selection"));
  }
  async function openHead() {
    const { layer, head } = place(), number = ++asked;
    grid.open(layer, head);
    showEdits();
    const opened = model.get("opened");
    if (opened.of?.[0] === layer && opened.of[1] === head) {
      [cells, of] = [opened, [layer, head]];
      showCells();
      return;
    }
    try {
      const { answer, buffers } = await ask({ open: [layer, head] });
      if (number !== asked) return;
      of = [layer, head];
      cells = { before: { ...answer.before, values: buffers[0] }, after: { ...answer.after, values: buffers[1] } };
      showCells();
    } catch (error) { if (number === asked) matrix.problem.textContent = error.message; }
  }
  function onSelection() {
    const { layer, head } = place();
    if (of && of[0] === layer && of[1] === head) matrix.pin(model.get("selection"));
    else openHead();
  }

  // --- what it says ---------------------------------------------------------------------------

  const digits = (x) => (x > 0 && x < 0.0005 ? "<0.001" : x.toFixed(3));
  function showSays() {
    says.replaceChildren();
    for (const [title, rows] of model.get("says")) {
      const node = make(says, "table");
      make(node, "caption", "", title);
      const head = make(make(node, "thead"), "tr");
      for (const name of ["", "before", "after", ""]) make(head, "th", "", name).scope = "col";
      const body = make(node, "tbody");
      for (const [what, before, after] of rows) {
        const row = make(body, "tr"), name = make(row, "th", "", what);
        name.scope = "row";
        name.title = what;
        make(row, "td", "", digits(before));
        make(row, "td", "", digits(after));
        const bars = make(make(row, "td"), "span", "attnviz-bars");
        bars.setAttribute("aria-hidden", "true"); // the numbers stand beside them
        for (const share of [before, after]) make(bars, "i").style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
      }
    }
    if (model.get("hint")) make(says, "p", "attnviz-place", model.get("hint"));
  }
  // --- all of it ------------------------------------------------------------------------------

  function layOut() {
    const room = root.clientWidth || 900, wide = room > 820 ? room * 0.42 : room - 8;
    const counts = model.get("heads");
    const width = grid.arrange(listHeads(counts), counts, false, wide);
    overview.style.width = `${Math.max(width, 300)}px`;
    grid.draw();
  }
  const draw = soon(() => {
    showTexts();
    layOut();
    grid.show(model.get("thumbnails"), model.get("palette"));
    showSays();
    of = null;
    openHead();
  });
  const showProblem = () => { problem.textContent = model.get("problem"); };
  const data = "change:tokens change:thumbnails change:says change:hint change:opened change:heads change:kind";
  model.on(data, draw.later);
  model.on("change:text change:other", showTexts);
  model.on("change:selection", onSelection);
  model.on("change:edits", showEdits);
  model.on("change:problem", showProblem);
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    layOut();
  });
  draw.now();
  showProblem();
  resized.observe(root);
  return () => {
    for (const timer of [typing, heating]) clearTimeout(timer);
    draw.cancel();
    grid.remove();
    matrix.remove();
    resized.disconnect();
    stop();
    model.off(data, draw.later);
    model.off("change:text change:other", showTexts);
    model.off("change:selection", onSelection);
    model.off("change:edits", showEdits);
    model.off("change:problem", showProblem);
  };
}

export default { render };
