// The page's side of views.py, there before JupyterLab: it counts what arrives, and takes the times.
(() => {
  const frame = () => new Promise(requestAnimationFrame);
  // The second frame begins when the first is on its way to the screen.
  const drawn = async () => { await frame(); await frame(); };
  const pause = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

  let received = 0, messages = []; // bytes from kernels, all and of each message
  window.WebSocket = class extends WebSocket {
    constructor(...how) {
      super(...how);
      if (!String(how[0]).includes("/channels")) return;
      this.addEventListener("message", ({ data }) => {
        messages.push(data.byteLength ?? data.length);
        received += messages.at(-1);
        window.report(String(received)); // heard even while the page has no time for anything else
      });
    }
  };

  // --- what is in a canvas ----------------------------------------------------------------------

  const SIDE = 16;
  const small = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const context = small.getContext("2d", { willReadFrequently: true });
  // Whether there is more than one colour in each of the four corners.
  function painted(canvas) {
    if (!canvas?.width || !canvas.height) return false;
    context.clearRect(0, 0, SIDE, SIDE);
    context.drawImage(canvas, 0, 0, SIDE, SIDE);
    const half = SIDE / 2;
    return [[0, 0], [half, 0], [0, half], [half, half]].every(([x, y]) => {
      const colors = new Uint32Array(context.getImageData(x, y, half, half).data.buffer);
      return colors.some((color) => color !== colors[0]);
    });
  }

  // --- the viewers ------------------------------------------------------------------------------

  // usable(cell, size): whether all that it draws at first is there.
  // open(cell): what a reader does before anything can be hovered over.
  // hover, click, zoom (cell, i, size): an element to point at, or [element, x, y] with x and y
  //   from 0 to 1; nothing where the viewer has no such thing.
  // answered: for an action, whether its answer is there (cell, before, size); `before` is what
  //   `now(cell, size)` gave before the event. Without: whatever two frames have drawn is the answer.
  const nth = (all, i) => all[i % all.length];
  const lines = (cell, count) => {
    const all = cell.getElementsByTagName("line");
    return all.length >= count && all[count - 1].hasAttribute("stroke-opacity");
  };
  const charts = (cell) => [...cell.querySelectorAll("canvas")]; // one for each head, and the large one
  const text = (cell, selector) => cell.querySelector(selector)?.textContent;

  const grid = (cell) => cell.querySelector("canvas.attnviz-grid");
  const open = (cell) => cell.querySelector("canvas.attnviz-cells");
  const MARGIN = 24; // pixels, left of the thumbnails and above them
  const headsSent = ({ n }) => { // that have come alone, in a message of little else
    const bytes = n > 4096 ? 256 ** 2 : 4 * Math.min(n, 512) ** 2; // of very long texts a sample first
    return messages.filter((length) => length >= bytes && length < bytes + 4096).length;
  };
  const sampled = (cell) => text(cell, ".attnviz-state").includes("open head");
  const attnviz = {
    usable: (cell) => painted(grid(cell)) && painted(open(cell)),
    // the open head has come, too, with all its queries
    complete: (size, cell) => size.n <= 512 || (headsSent(size) > 0 && !sampled(cell)),
    hover(cell, i, { layers, heads }) {
      const { clientWidth, clientHeight } = grid(cell);
      const middle = (k, n, length) => (MARGIN + ((k % n) + 0.5) * ((length - MARGIN) / n)) / length;
      return [grid(cell), middle(5 * i + 2, heads, clientWidth), middle(i + 1, layers, clientHeight)];
    },
    click: (...how) => attnviz.hover(...how),
    whole: (...how) => attnviz.hover(...how),
    zoom: (cell, i) => [open(cell), 0.2 + 0.25 * i, 0.75 - 0.25 * i],
    now: (cell, size) => ({
      heads: headsSent(size),
      pointed: text(cell, ".attnviz-overview .attnviz-value"),
      title: text(cell, ".attnviz-matrix .attnviz-title"),
    }),
    answered: {
      hover: (cell, before, size) => attnviz.now(cell, size).pointed !== before.pointed,
      click: (cell, before, size) => attnviz.now(cell, size).heads > before.heads && attnviz.now(cell, size).title !== before.title,
      whole: (...how) => attnviz.answered.click(...how) && !sampled(how[0]),
      zoom: (cell) => cell.querySelector(".attnviz-matrix").dataset.detail === "exact",
    },
  };
  const headView = {
    usable: (cell, { heads, n }) => lines(cell, heads * n * n),
    hover: (cell, i) => nth(cell.querySelectorAll("#left text"), i),
    click: (cell) => cell.querySelector("#vis svg > g:last-child > rect"),
  };
  const modelView = {
    usable: (cell, { layers, heads, n }) => lines(cell, layers * heads * n * n),
    open: (cell) => cell.querySelector("#vis svg > g > rect:last-child").dispatchEvent(new MouseEvent("click")),
    hover: (cell, i) => nth(cell.querySelectorAll("#vis svg g.detail text"), i),
    // in turn the last and the first of a layer: those between are below what is open
    click: (cell, i, { heads }) => cell.querySelectorAll("#vis svg > g > rect:last-child")[i % 2 ? 0 : heads - 1],
  };
  const circuitsVis = {
    usable: (cell, { layers, heads }) => charts(cell).length > layers * heads && charts(cell).every(painted),
    hover: (cell, i) => charts(cell)[i + 1],
    click: (cell, i) => charts(cell)[i + 1],
    now: (cell) => cell.querySelectorAll("h3")[1].textContent,
    answered: { hover: (cell, before) => circuitsVis.now(cell) !== before && painted(charts(cell).at(-1)) },
  };
  const inspectus = {
    usable: (cell, { layers, heads, n }) =>
      cell.getElementsByClassName("cell").length >= n * n && cell.querySelectorAll(".dimension-values .value").length >= layers + heads,
    hover() {},
    click: (cell, i) => nth(cell.querySelectorAll(".dimension-values .value"), i),
  };
  const viewers = {
    attnviz, "BertViz head_view": headView, "BertViz model_view": modelView, CircuitsVis: circuitsVis, Inspectus: inspectus,
  };

  // --- what views.py calls ----------------------------------------------------------------------

  let panel, cell, viewer, size, answer;

  async function openNotebook(path, name, sizes) {
    await jupyterapp.restored;
    panel = await jupyterapp.commands.execute("docmanager:open", { path });
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
    cell = panel.content.widgets[1].node;
    [viewer, size] = [viewers[name], sizes];
  }

  function problemOf(number) {
    const { model: { outputs }, node } = panel.content.widgets[number];
    for (let i = 0; i < outputs.length; i++) {
      if (outputs.get(i).type !== "error") continue;
      const { ename, evalue } = outputs.get(i).toJSON();
      return `${ename}: ${evalue}`;
    }
    return node.querySelector("[data-mime-type$=stderr]")?.textContent.match(/Javascript Error: .*/)?.[0] ?? "";
  }
  // Run a cell; return what went wrong, or "".
  async function run(number) {
    panel.content.activeCellIndex = number;
    await jupyterapp.commands.execute("notebook:run-cell");
    await drawn();
    return problemOf(number);
  }
  // Run the second cell; return { seconds, bytes } of the view, or { problem }.
  async function show() {
    await drawn();
    [received, messages] = [0, []];
    const start = performance.now();
    let problem;
    const ran = run(1).then((found) => { problem = found; });
    while (!viewer.usable(cell, size)) {
      if (problem) return { problem };
      await frame();
    }
    await drawn();
    const seconds = (performance.now() - start) / 1000;
    await ran;
    while (viewer.complete && !viewer.complete(size, cell)) await frame();
    await pause(300);
    const bytes = received;
    viewer.open?.(cell);
    return { seconds, bytes };
  }

  // Bring a target into sight; return where it is in the window, or null.
  async function target(action, i) {
    const found = viewer[action](cell, i, size);
    if (!found) return null;
    const [element, x, y] = Array.isArray(found) ? found : [found, 0.5, 0.5];
    const place = () => {
      const box = element.getBoundingClientRect();
      return [box.x + x * box.width, box.y + y * box.height];
    };
    if (place()[1] < 200 || place()[1] > innerHeight - 100) {
      panel.content.node.querySelector(".jp-WindowedPanel-outer").scrollTop += place()[1] - innerHeight / 2;
    }
    await rest();
    return place();
  }
  // Until nothing is left to draw.
  async function rest() {
    await pause(200);
    while (viewer.complete && !viewer.complete(size, cell)) await frame();
    await drawn();
  }
  // Listen for the next event of a type; taken() is then how many milliseconds its answer took.
  function listen(type, action) {
    const { now, answered } = viewer;
    const before = now?.(cell, size);
    answer = new Promise((resolve) => {
      const hear = async ({ timeStamp }) => {
        await frame();
        while (answered?.[action] && !answered[action](cell, before, size)) await frame();
        await frame();
        resolve(performance.now() - timeStamp);
      };
      addEventListener(type, hear, { capture: true, once: true });
    });
  }
  const taken = () => answer;
  const focus = (action) => viewer[action](cell, 0, size)[0].focus();

  window.bench = { open: openNotebook, run, show, target, rest, listen, taken, focus };
})();
