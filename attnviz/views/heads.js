// Every head as a thumbnail; the one that is chosen beside them, close up.
import { make, questions, readBytes, readFloats, soon, tableButton, writeTable } from "./common.js";
import { listHeads, makeGrid } from "./grid.js";
import { makeMatrix } from "./matrix.js";

const GRID_HINT = "Each square is a head: rows are queries, columns keys. Click or Enter opens one.";
const SORTED_HINT = " Below it: layer · head.";
const NATURAL = "layer and head";
const STAYS = 250; // milliseconds with a head before all its queries are read

function render({ model, el }) {
  const root = make(el, "div", "attnviz attnviz-heads");
  const title = make(root, "div", "attnviz-title");
  const beside = make(root, "div", "attnviz-beside");
  const overview = make(beside, "div", "attnviz-overview");
  const tools = make(overview, "div", "attnviz-foot");
  const orderLabel = make(tools, "label", "", "sort by");
  const orderBox = make(orderLabel, "select");
  for (const name of [NATURAL, ...Object.keys(model.get("measured"))]) make(orderBox, "option", "", name).value = name;
  const grid = makeGrid(overview, {
    label: "All heads. Arrow keys move, Enter opens a head.",
    choose: ({ layer, head }, byKey) => {
      set({ selection: { ...model.get("selection"), layer, head } });
      if (byKey) matrix.canvas.focus();
    },
    point: writeReadout,
  });
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
  const all = listHeads(perLayer);
  const measured = Object.fromEntries(Object.entries(model.get("measured")).map(([name, bytes]) => [name, readFloats(bytes)]));
  let order = all, open = { layer: null, head: null }, asked = 0; // the heads as they are sorted; the one that is open
  let sampledOpen = 1; // the open head shows one query in so many

  // --- thumbnails -----------------------------------------------------------------------------

  const natural = () => !(model.get("order") in measured);
  function arrange() {
    orderBox.value = natural() ? NATURAL : model.get("order");
    const by = measured[orderBox.value], room = root.clientWidth || 900;
    order = by ? [...all].sort((a, b) => by[b.index] - by[a.index] || a.index - b.index) : all;
    const wanted = room > 740 ? Math.max(300, room * 0.42) : room - 8; // the open head beside it, or below
    overview.style.width = `${Math.max(300, grid.arrange(order, perLayer, !natural(), wanted))}px`;
    grid.draw();
    writeReadout(null);
    table.refresh();
  }
  function writeReadout(one) {
    readout.replaceChildren();
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
    if (sampledOpen > 1) parts.push(`The open head shows one query in ${sampledOpen} until all are read.`);
    state.textContent = parts.join(" ");
  }
  function fillTable(node) {
    const listed = Object.keys(measured);
    writeTable(node, `What each head does: means over ${model.get("measured_on")} queries`, ["layer, head", ...listed],
      order.map((one) => [`${one.layer}, ${one.head}`, ...listed.map((name) => measured[name][one.index].toFixed(3))]), 0);
  }

  // --- the open head --------------------------------------------------------------------------

  function showOpen(cells, provisional = false) {
    matrix.show({
      title: `layer ${open.layer}, head ${open.head}`,
      queries: model.get("query_tokens"),
      keys: model.get("key_tokens"),
      cells,
      provisional,
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
    grid.open(layer, head);
    const number = ++asked;
    if (first && model.get("cells").values && layer === 0 && head === 0) { showOpen(model.get("cells")); return; }
    // the thumbnail at once, and the head itself as soon as it is here
    showOpen(grid.cellsOf(one), true);
    const gone = () => removed || number !== asked;
    try {
      for (const question of [{ open: [layer, head] }, { open: [layer, head], whole: true }]) {
        const { answer, buffers } = await askFirst(question);
        if (gone()) return;
        showOpen({ ...answer, values: buffers[0] });
        sampledOpen = answer.sampled ?? 1;
        writeState();
        if (sampledOpen === 1) return;
        await new Promise((later) => setTimeout(later, STAYS)); // who leafs through the heads waits for all of none
        if (gone()) return;
      }
    } catch (error) {
      if (!gone()) matrix.problem.textContent = error.message;
    }
  }

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
        grid.improve(answer, readBytes(buffers[0]));
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
  const grow = soon(() => { grid.draw(); writeState(); });
  const sight = new IntersectionObserver(([seen]) => { inSight = seen.isIntersecting; readOn(); });

  // --- the reader -----------------------------------------------------------------------------

  matrix.canvas.addEventListener("keydown", (event) => { // what the matrix left over: back to the heads
    if (event.key === "Escape" && !event.defaultPrevented) { grid.canvas.focus(); event.stopPropagation(); }
  });
  orderBox.addEventListener("change", () => set({ order: orderBox.value }));

  const writeTitle = () => { title.textContent = model.get("title"); };
  const refresh = () => { grid.show(model.get("thumbnails"), model.get("palette")); writeState(); };
  const color = () => matrix.setColors(model.get("scale"), model.get("threshold"));
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    arrange();
  });
  writeTitle();
  arrange();
  refresh();
  openHead();
  model.on("change:selection", openHead);
  model.on("change:order", arrange);
  model.on("change:title", writeTitle);
  model.on("change:thumbnails change:sampled", refresh);
  model.on("change:scale change:threshold", color);
  resized.observe(root);
  sight.observe(root);
  return () => {
    removed = true;
    grow.cancel();
    matrix.remove();
    resized.disconnect();
    sight.disconnect();
    grid.remove();
    stop();
    model.off("change:selection", openHead);
    model.off("change:order", arrange);
    model.off("change:title", writeTitle);
    model.off("change:thumbnails change:sampled", refresh);
    model.off("change:scale change:threshold", color);
  };
}

export default { render };
