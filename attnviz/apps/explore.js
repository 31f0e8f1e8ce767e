// A model to play with: its text, its heads, what it says, and one head before and after.
import { asNumber, asWord, clamp, make, makeButton, questions, readFloats, readRoots, soon } from "../views/common.js";
import { listHeads, makeGrid } from "../views/grid.js";
import { makeMatrix } from "../views/matrix.js";
import { visible } from "../views/visible.js";

const TYPING = 150; // milliseconds without a key before the model reads
const HEAT = 100; // steps of the temperature slider on either side of 1
const TALL = 430, LONG = 126; // CSS pixels: the heads, a text
const GRID_HINT = "Each square is a head. Click or Enter opens one.";

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-explore");
  const title = make(root, "div", "attnviz-title");
  const texts = make(root, "div", "attnviz-texts");
  const { ask, stop } = questions(model);
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  };
  const problem = make(root, "div", "attnviz-problem");
  problem.setAttribute("role", "alert");
  const hear = (message) => { problem.textContent = message || model.get("problem"); };
  // Something for the model to read. The question behind it shows whether there is still one: an edit has no answer of its own.
  function tell(values) {
    set(values);
    ask({ alive: true }).then(() => hear(""), (error) => hear(error.message));
  }

  const beside = make(root, "div", "attnviz-beside");
  const overview = make(beside, "div", "attnviz-overview");

  // --- the texts ------------------------------------------------------------------------------

  const fields = {};
  for (const [name, label] of [["text", "text"], ["other", "second text"]]) {
    const id = `attnviz-${name}-${Math.random().toString(36).slice(2)}`;
    const tag = make(texts, "label", "", label);
    tag.htmlFor = id;
    const field = make(texts, "textarea");
    Object.assign(field, { id, rows: 1, value: model.get(name), spellcheck: false, dir: "auto" });
    field.dataset.lmSuppressShortcuts = "true";
    field.readOnly = !model.get("live");
    const one = fields[name] = { tag, field, typing: 0 };
    const send = () => {
      clearTimeout(one.typing);
      one.typing = 0;
      if (field.value !== model.get(name)) tell({ [name]: field.value });
    };
    field.addEventListener("input", () => {
      fit(field);
      clearTimeout(one.typing);
      one.typing = setTimeout(send, TYPING);
    });
    field.addEventListener("keydown", (event) => { // Enter is no part of the text, but a wish to see it read
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      send();
    });
  }
  function fit(field) { // as high as its text
    field.style.height = "";
    field.style.height = `${Math.min(field.scrollHeight + 2, LONG)}px`;
  }
  if (!model.get("live")) make(texts, "p", "attnviz-place", "A saved page: to change the text or the heads, open it in a notebook, where Python runs the model.");
  function showTexts() {
    for (const [name, { field, typing }] of Object.entries(fields)) {
      if (!typing && field.value !== model.get(name)) field.value = model.get(name); // never over what is being typed
    }
    const compares = model.get("kind") === "similarity";
    fields.other.tag.hidden = fields.other.field.hidden = !compares;
    for (const { field } of Object.values(fields)) fit(field);
  }

  // --- the heads ------------------------------------------------------------------------------

  const tools = make(overview, "div", "attnviz-foot");
  const undo = makeButton(tools, "Undo all edits", () => { settle(); tell({ edits: [] }); });
  const grid = makeGrid(overview, {
    label: "All heads. Arrow keys move, Enter opens a head.",
    choose: (one, byKey) => {
      set({ selection: { ...model.get("selection"), layer: one.layer, head: one.head } });
      if (byKey) offBox.focus();
    },
    point: (one) => showHint(one),
  });
  const hint = make(overview, "div", "attnviz-readout");
  hint.setAttribute("aria-live", "polite");
  function showHint(one = null) {
    const { step } = model.get("thumbnails"), edit = one && editOf(one);
    if (one) hint.textContent = `layer ${one.layer}, head ${one.head} ${edit ? `(${describe(edit)}) ` : ""}${model.get("names")[one.layer]}`;
    else hint.textContent = GRID_HINT + (step > 1 ? ` Of this long text they show one query in ${step}.` : "");
  }
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
  says.tabIndex = 0; // so that the keyboard can scroll it
  says.setAttribute("role", "region");
  says.setAttribute("aria-label", "What the model says");
  says.dataset.lmSuppressShortcuts = "true";

  const editOf = ({ layer, head }) => model.get("edits").find((e) => e.layer === layer && e.head === head);
  const digitsOf = (t) => (t < 0.1 ? t.toPrecision(1) : t < 10 ? t.toFixed(2) : t.toPrecision(3)); // of a temperature
  const describe = (edit) => (edit.off ? "off" : `temperature ${digitsOf(edit.temperature)}`);
  const place = () => ({ layer: model.get("selection").layer ?? 0, head: model.get("selection").head ?? 0 });
  function changeHead({ layer, head }, edit) {
    const others = model.get("edits").filter((e) => e.layer !== layer || e.head !== head);
    tell({ edits: edit ? [...others, { layer, head, ...edit }] : others });
  }
  let heating = 0;
  const settle = () => { clearTimeout(heating); heating = 0; };
  offBox.addEventListener("change", () => {
    settle();
    changeHead(place(), offBox.checked ? { off: true } : null);
  });
  function showHeat(t) {
    heatText.textContent = digitsOf(t);
    heat.setAttribute("aria-valuetext", digitsOf(t));
  }
  heat.addEventListener("input", () => {
    const at = place(), wanted = Number(heat.value), t = 10 ** (wanted / HEAT); // another head may be open when the time is up
    showHeat(t);
    settle();
    heating = setTimeout(() => {
      heating = 0;
      changeHead(at, wanted ? { temperature: t } : null);
    }, TYPING);
  });
  function showEdits() {
    const edit = editOf(place()), { layer, head } = place(), edits = model.get("edits"), live = model.get("live");
    boxTitle.textContent = `layer ${layer}, head ${head}`;
    offBox.checked = Boolean(edit?.off);
    offBox.disabled = !live;
    heat.disabled = !live || Boolean(edit?.off);
    if (!heating) { // never under the reader's finger
      const t = edit?.temperature ?? 1;
      heat.value = Math.round(HEAT * Math.log10(t));
      showHeat(t);
    }
    undo.disabled = !live || !edits.length;
    grid.mark(edits.map((e) => ({ ...e, text: e.off ? "off" : `÷${Number(e.temperature.toPrecision(2))}` })));
  }

  // --- one head -------------------------------------------------------------------------------

  const right = make(beside, "div", "attnviz-one");
  const which = make(right, "div", "attnviz-which");
  which.setAttribute("role", "group");
  which.setAttribute("aria-label", "Which weights");
  let shown = "after", cells = null, of = null, wanted = null; // the tab; a head's weights, and whose; the head to open
  let asked = 0, drawn = 0, inMatrix = {}; // heads asked for; pictures begun; what the matrix shows
  const tabs = Object.fromEntries(["before", "after", "difference"].map((name) => [name, makeButton(which, name, () => { shown = name; showCells(); })]));
  const matrix = makeMatrix(right, {
    ask: (question) => ask({ ...question, ...inMatrix }),
    select: ({ query, key }) => set({ selection: { ...model.get("selection"), query, key } }),
    setColors: ({ scale, threshold }) => { colors = [scale, threshold]; matrix.setColors(...colors); },
  });
  let colors = ["linear", 0];

  // The change of each weight; of long texts, whose cells are rounded or patches, Python works it out.
  async function readDifference() {
    const { before, after } = cells;
    if (after && !(before.exact && before.rows === model.get("tokens").length)) {
      const { answer, buffers } = await ask({ of, which: "difference", whole: true });
      return { ...answer.whole, values: buffers[0] };
    }
    const [old, now] = [before, after ?? before].map(({ values }) => (before.exact ? readFloats : readRoots)(values));
    return { ...before, exact: true, values: new DataView(now.map((weight, i) => weight - old[i]).buffer) };
  }
  async function showCells() {
    for (const [name, tab] of Object.entries(tabs)) tab.setAttribute("aria-pressed", String(name === shown));
    if (!cells) return;
    const number = ++drawn, same = cells.after ? "" : " (none: as before)";
    const common = { title: `layer ${of[0]}, head ${of[1]}: ${shown}`, queries: model.get("tokens"), keys: model.get("tokens") };
    const next = { of, which: shown };
    if (shown === "difference") {
      let change;
      try { change = await readDifference(); } catch (error) {
        if (number === drawn) matrix.problem.textContent = error.message;
        return;
      }
      if (number !== drawn) return; // something else is shown by now
      inMatrix = next;
      const most = readFloats(change.values).subarray(0, change.rows * change.columns).reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
      matrix.show({ ...common, title: common.title + same, cells: change, palette: model.get("diverging"), range: [-most, most] });
    } else {
      inMatrix = next;
      matrix.show({ ...common, cells: cells[shown] ?? cells.before, palette: model.get("palette") });
    }
    matrix.setColors(...colors);
    matrix.pin(model.get("selection"));
  }
  async function openHead() {
    const { layer, head } = place(), number = ++asked;
    wanted = [layer, head];
    grid.open(layer, head);
    showEdits();
    const opened = model.get("opened");
    if (opened.of?.[0] === layer && opened.of[1] === head) {
      [cells, of] = [opened, wanted];
      showCells();
      return;
    }
    if (!cells && opened.of) { // should nobody answer, at least the head that is at hand is shown
      [cells, of] = [opened, opened.of];
      showCells();
    }
    try {
      const { answer, buffers } = await ask({ open: [layer, head] });
      if (number !== asked) return;
      of = wanted;
      cells = Object.fromEntries(Object.entries(answer).map(([name, part], i) => [name, { ...part, values: buffers[i] }]));
      showCells();
    } catch (error) { if (number === asked) matrix.problem.textContent = error.message; }
  }
  function onSelection() {
    const { layer, head } = place();
    if (wanted && wanted[0] === layer && wanted[1] === head) matrix.pin(model.get("selection"));
    else openHead();
  }

  // --- what it says ---------------------------------------------------------------------------

  function digits(x) {
    if (!Number.isFinite(x)) return asWord(x);
    if (x > 0 && x < 0.0005) return "<0.001";
    return x.toFixed(3).replace(/^-(?=0\.000$)/, "").replace("-", "−");
  }
  function showSays() {
    says.replaceChildren();
    for (const [title, rows] of model.get("says")) {
      const node = make(says, "table");
      make(node, "caption", "", title);
      const head = make(make(node, "thead"), "tr");
      for (const name of ["", "before", "after", ""]) make(head, "th", "", name).scope = "col";
      const body = make(node, "tbody");
      for (const [what, ...numbers] of rows) {
        const [before, after] = numbers.map(asNumber);
        const row = make(body, "tr"), name = make(row, "th", "", visible(what));
        name.scope = "row";
        name.title = name.textContent;
        make(row, "td", "", digits(before));
        make(row, "td", "", digits(after));
        const bars = make(make(row, "td"), "span", "attnviz-bars");
        bars.setAttribute("aria-hidden", "true"); // the numbers stand beside them
        for (const share of [before, after]) make(bars, "i").style.width = `${100 * (Number.isNaN(share) ? 0 : clamp(share, 0, 1))}%`;
      }
    }
    if (model.get("hint")) make(says, "p", "attnviz-place", model.get("hint"));
  }
  // --- all of it ------------------------------------------------------------------------------

  function arrange() {
    const room = root.clientWidth || 900, wide = room > 700 ? room * 0.42 : room - 12;
    const counts = model.get("heads");
    const width = grid.arrange(listHeads(counts), counts, false, wide, TALL);
    overview.style.width = `${Math.max(width, 300)}px`;
  }
  const draw = soon(() => {
    showTexts();
    arrange();
    grid.show(model.get("thumbnails"), model.get("palette"));
    showHint();
    showSays();
    hear("");
    cells = null; // those of another text
    openHead();
  });
  const showProblem = () => hear("");
  const showTitle = () => { title.textContent = model.get("title"); };
  const data = "change:tokens change:thumbnails change:says change:hint change:opened change:heads change:kind";
  model.on(data, draw.later);
  model.on("change:text change:other", showTexts);
  model.on("change:selection", onSelection);
  model.on("change:edits", showEdits);
  model.on("change:problem", showProblem);
  model.on("change:title", showTitle);
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    showTexts();
    arrange();
    grid.draw();
  });
  showTitle();
  draw.now();
  resized.observe(root);
  return () => {
    for (const timer of [fields.text.typing, fields.other.typing, heating]) clearTimeout(timer);
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
    model.off("change:title", showTitle);
  };
}

export default { render };
