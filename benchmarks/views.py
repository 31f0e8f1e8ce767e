"""What it takes to see all heads: attnviz's `av.heads` beside BertViz, CircuitsVis and Inspectus.

python3 -m venv .bench && .bench/bin/python -m pip install -r benchmarks/requirements.txt
.venv/bin/python benchmarks/views.py               all; needs a Chromium on the PATH
.venv/bin/python benchmarks/views.py --no-peers    attnviz alone, without .bench

Each view gets a real JupyterLab notebook in a headless Chromium, with a browser and a kernel of its
own (one thread, 8 GiB); the viewers take turns. The first cell imports, and makes random weights,
the same for all. The second shows the view, and is measured:

usable  Seconds from running it until all that the viewer draws at first is there, and two animation
        frames have passed. attnviz: colours are in all corners of the canvas with the thumbnails,
        and of the one with the open head. BertViz: every line of a layer (head_view) or of all
        layers (model_view) is in its SVG. CircuitsVis: colours are in all corners of every head's
        canvas, and of the large one. Inspectus: every cell of its matrix, every layer and every
        head is in the page.
MB      Every byte that the kernel sends to the page before the reader does anything: output,
        widgets, scripts.
hover   Milliseconds from a real mouse event until its answer and two frames more, of which a
        browser needs 17 to 33 for nothing. attnviz: a thumbnail. head_view: a token. model_view:
        a token of the open head. CircuitsVis: a thumbnail, until its head is drawn large.
        Inspectus has nothing but the browser's own tooltip.
click   The same. attnviz: a thumbnail, until the numbers of its head have come from the kernel;
        above 4,096 tokens those of a sample of its queries.
        head_view: a head, off or on. model_view, CircuitsVis: a thumbnail. Inspectus: a layer.
whole   attnviz above 512 tokens: from a click until all queries of that head have been read.
detail  attnviz above 512 tokens: from the key that zooms in until the single weights are there,
        which the kernel works out from queries and keys (it never has N × N weights).
offline Whether 2 × 4 × 16 works with all but JupyterLab refused to the browser.

All are medians. The peers get what helps them: BertViz loads d3, jQuery and RequireJS from the
network; here they come from files, at once, and RequireJS already in the first cell, because in
JupyterLab the first BertViz view after loading the page fails without it. CircuitsVis puts its
script into the notebook, as it does by itself where there is no network.
"""

import argparse
import base64
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import websocket  # which Jupyter's server needs

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".bench"
SIZES = "2x4x16 6x12x64 12x12x128 12x12x256 12x12x512 12x12x2048 12x12x8192"
PEERS_UP_TO = 256  # tokens
WHOLE = 512  # tokens up to which the views are given all weights, and attnviz sends a head as it is
SMALL = (2, 4, 16)
HEADLINE, PEER = (12, 12, 256), "BertViz head_view"
FASTER, SMALLER = 10, 20
LIMIT = 120  # seconds until usable, and for each hover or click
TIMES = 6  # hovers and clicks: even, so that what is switched off is on again
ZOOMS = 3
MEMORY = 8 * 2**30  # bytes of a kernel
MB = 10**6
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--window-size=1600,1000",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # no network
)
REQUIRE = "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js"
COPIES = {  # what BertViz loads from the network, and where the packages in .bench have it
    "require.min.js": "nbclassic/static/components/requirejs/require.js",
    "jquery.min.js": "nbclassic/static/components/jquery/jquery.min.js",
    "d3.min.js": "mpld3/js/d3.v5.min.js",
}

Size = tuple[int, int, int]  # layers, heads, tokens


@dataclass
class Cost:
    """What a view costs; None for what was not measured, and why it failed where it did."""

    seconds: float | None = None  # until usable; infinite where that took too long
    sent: int | None = None  # bytes
    hover: float | None = None  # milliseconds
    click: float | None = None
    whole: float | None = None
    detail: float | None = None
    problem: str = ""


# --- the viewers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Viewer:
    """A tool to look at attention; views.js knows by its name how to use it in the page."""

    name: str
    environment: Path  # where it is installed
    imports: str
    show: str  # the second cell

    @property
    def kernel(self) -> str:
        return self.environment.name.strip(".")


OURS = Viewer(
    "attnviz", Path(sys.prefix), "import attnviz as av\nav.heads", "av.heads(seen, tokens)"
)
BERTVIZ = f"""\
from IPython.display import HTML, display
display(HTML('<script src="{REQUIRE}"></script>'))
from bertviz import head_view, model_view"""
CIRCUITSVIS = """\
from IPython.display import HTML
from circuitsvis.attention import attention_heads
names = [f"L{i}H{j}" for i in range(layers) for j in range(heads)]"""
VIEWERS = (
    OURS,
    Viewer("BertViz head_view", PEERS, BERTVIZ, "head_view(seen, tokens)"),
    Viewer("BertViz model_view", PEERS, BERTVIZ, "model_view(seen, tokens)"),
    Viewer(
        "CircuitsVis",
        PEERS,
        CIRCUITSVIS,
        "together = torch.cat(seen).flatten(0, 1)\n"
        "HTML(attention_heads(together, tokens, names, mask_upper_tri=False).local_src)",
    ),
    Viewer("Inspectus", PEERS, "import inspectus", "inspectus.attention(seen, tokens)"),
)

LIMITS = f"import resource\nresource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY}))"
RANDOM = """\
import torch
chance = torch.Generator().manual_seed(0)
def normal(*shape):
    return torch.randn(1, heads, *shape, generator=chance)
tokens = [f"token{i}" for i in range(n)]"""
WEIGHTS = "seen = [(3 * normal(n, n)).softmax(-1) for _ in range(layers)]"
RECORDS = """\
from attnviz.seeing.record import AttentionRecord
seen = [
    AttentionRecord(
        i, 0, f"layers.{i}", "self", query=normal(n, 64), key=normal(n, 64), scale=1 / 8
    )
    for i in range(layers)
]"""


def notebook(viewer: Viewer, size: Size) -> dict:
    """A notebook of two cells: what the view needs, and the view."""
    sizes = f"layers, heads, n = {size}"
    seen = WEIGHTS if size[-1] <= WHOLE else RECORDS
    setup = "\n".join([LIMITS, sizes, viewer.imports, RANDOM, seen])
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    kernel = {"name": viewer.kernel, "display_name": viewer.kernel, "language": "python"}
    return {
        "cells": [
            {"id": name, "source": source, **cell}
            for name, source in [("setup", setup), ("show", viewer.show)]
        ],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


# --- JupyterLab -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    address: str
    token: str
    folder: Path  # that it serves

    def call(self, path: str, method: str = "GET") -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/{path}", None, headers, method=method)
        return get(request)

    def end_kernels(self) -> None:
        for kernel in json.loads(self.call("api/kernels")):
            self.call(f"api/kernels/{kernel['id']}", "DELETE")


@contextmanager
def jupyterlab(viewers: Iterable[Viewer]) -> Iterator[Lab]:
    """A JupyterLab with settings and kernels of its own, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="views", ignore_cleanup_errors=True) as name:
        home = Path(name)
        for viewer in viewers:
            write_json(home / "data" / "kernels" / viewer.kernel / "kernel.json", kernel(viewer))
        settings = home / "settings" / "@jupyterlab"
        news = settings / "apputils-extension" / "notification.jupyterlab-settings"
        write_json(news, {"fetchNews": "false", "checkForUpdates": False})
        documents = settings / "docmanager-extension" / "plugin.jupyterlab-settings"
        write_json(documents, {"autosave": False})
        places = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }
        folder = home / "notebooks"
        folder.mkdir()
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={folder}"),
            "--LabApp.expose_app_in_browser=True",
        ]
        environment = os.environ | {name: str(home / place) for name, place in places.items()}
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield started(server, home, folder)
        finally:
            server.terminate()
            server.wait(30)


def kernel(viewer: Viewer) -> dict:
    return {
        "argv": [
            *(str(viewer.environment / "bin" / "python"), "-m", "ipykernel_launcher"),
            *("-f", "{connection_file}"),
        ],
        "display_name": viewer.kernel,
        "language": "python",
        "env": {"OMP_NUM_THREADS": "1"},
    }


def get(request: str | urllib.request.Request) -> bytes:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy
    with direct.open(request, timeout=60) as answer:
        return answer.read()


def write_json(file: Path, content: dict) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def started(server: subprocess.Popen, home: Path, folder: Path) -> Lab:
    """Wait until the server answers."""
    file = home / "runtime" / f"jpserver-{server.pid}.json"
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
            lab = Lab(info["url"].rstrip("/"), info["token"], folder)
            lab.call("api")
            return lab
        except (OSError, ValueError):
            time.sleep(0.1)
    log = (home / "log").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"JupyterLab did not start:\n{log}")


# --- the browser ----------------------------------------------------------------------------------


class Crash(Exception):
    """The page is gone."""


class Browser:
    """A headless Chromium with one page, driven over its own protocol.

    Playwright would have every message of a kernel copied to itself, and so slow down the viewers
    that send much.

    received: the bytes that the page has reported to have got from its kernel.
    """

    def __init__(self, home: Path, offline: bool):
        self._offline = offline
        self._calls = 0
        self.received = 0
        program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
        if program is None:
            raise RuntimeError(f"needs a browser on the PATH: {', '.join(BROWSERS)}")
        command = [program, *FLAGS, f"--user-data-dir={home}", "--remote-debugging-port=0"]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            address = f"http://127.0.0.1:{port(home / 'DevToolsActivePort')}/json/list"
            (page,) = [p for p in json.loads(get(address)) if p["type"] == "page"]
            self._socket = websocket.create_connection(
                page["webSocketDebuggerUrl"], suppress_origin=True, http_no_proxy=["127.0.0.1"]
            )
        except BaseException:
            self._process.kill()
            raise
        self.call("Inspector.enable")  # tells of crashes
        self.call("Fetch.enable", patterns=[{"urlPattern": "https://*"}])
        script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
        self.call("Runtime.enable")
        self.call("Runtime.addBinding", name="report")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.call("Page.enable")
        self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def call(self, method: str, **parameters: Any) -> dict:
        """Call a method of the protocol; raises TimeoutError after LIMIT seconds."""
        self._calls += 1
        call = self._calls
        self._send(call, method, parameters)
        deadline = time.monotonic() + LIMIT
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                said = json.loads(self._socket.recv())
            except websocket.WebSocketTimeoutException:
                raise TimeoutError from None
            if said.get("method") == "Fetch.requestPaused":
                self._answer(said["params"])
            elif said.get("method") == "Runtime.bindingCalled":
                self.received = int(said["params"]["payload"])
            elif said.get("method") == "Inspector.targetCrashed":
                raise Crash
            elif said.get("id") == call:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']['message']}")
                return said["result"]

    def js(self, function: str, *how: Any) -> Any:
        """What a function in the page returns; how: its arguments."""
        expression = f"({function})(...{json.dumps(how)})"
        said = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in said:
            raise RuntimeError(f"{function}: {said['exceptionDetails']}")
        return said["result"].get("value")

    def wait_for(self, condition: str) -> None:
        deadline = time.monotonic() + 60
        while not self.js(f"() => Boolean({condition})"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the page never had {condition}")
            time.sleep(0.05)

    def mouse(self, kind: str, place: list[float]) -> None:
        button = {} if kind == "Moved" else {"button": "left", "clickCount": 1}
        x, y = place
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, **button)

    def press(self, key: str) -> None:
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, call: int, method: str, parameters: dict) -> None:
        self._socket.send(json.dumps({"id": call, "method": method, "params": parameters}))

    def _answer(self, paused: dict) -> None:
        """Answer what the page wants from the network with a local copy, or refuse it."""
        request = {"requestId": paused["requestId"]}
        name = paused["request"]["url"].rpartition("/")[2]
        packages = next(PEERS.glob("lib/python*/site-packages"), None)
        if self._offline or packages is None or name not in COPIES:
            self._send(0, "Fetch.failRequest", request | {"errorReason": "ConnectionRefused"})
            return
        headers = {"Access-Control-Allow-Origin": "*", "Content-Type": "text/javascript"}
        answer = {
            "responseCode": 200,
            "responseHeaders": [{"name": n, "value": v} for n, v in headers.items()],
            "body": base64.b64encode((packages / COPIES[name]).read_bytes()).decode(),
        }
        self._send(0, "Fetch.fulfillRequest", request | answer)


def port(file: Path) -> int:
    """The port that a starting Chromium writes into a file."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError, IndexError):
            return int(file.read_text().split()[0])
        time.sleep(0.05)
    raise RuntimeError("Chromium did not start")


# --- a measurement --------------------------------------------------------------------------------


def measured(lab: Lab, viewer: Viewer, size: Size, *, offline: bool = False) -> Cost:
    """What one view costs, in a new browser and a new kernel."""
    cost = Cost()
    with tempfile.TemporaryDirectory(prefix="views", ignore_cleanup_errors=True) as home:
        page = Browser(Path(home), offline)
        try:
            prepare(page, lab, viewer, size, offline)
            measure(cost, page, size, offline)
        except TimeoutError:
            cost.problem = f"no answer in {LIMIT} s"
        except Crash:
            cost.problem = "the page crashes"
        finally:
            page.close()
            lab.end_kernels()
    return cost


def prepare(page: Browser, lab: Lab, viewer: Viewer, size: Size, offline: bool) -> None:
    """Open the notebook of a view and run its first cell."""
    write_json(lab.folder / "view.ipynb", notebook(viewer, size))
    page.call("Page.navigate", url=f"{lab.address}/lab?token={lab.token}")
    page.wait_for("window.bench && window.jupyterapp")
    sizes = dict(zip(("layers", "heads", "n"), size, strict=True))
    page.js("bench.open", "view.ipynb", viewer.name, sizes)
    if problem := page.js("bench.run", 0):
        raise RuntimeError(f"{viewer.name}: {problem}")
    if REQUIRE in viewer.imports and not offline:
        page.wait_for("window.require")


def measure(cost: Cost, page: Browser, size: Size, offline: bool) -> None:
    """Write into a cost what showing and using the view takes."""
    try:
        shown = page.js("bench.show")
    except TimeoutError:
        cost.seconds, cost.sent = math.inf, page.received
        return
    if "problem" in shown:
        cost.problem = shown["problem"]
        return
    cost.seconds, cost.sent = shown["seconds"], shown["bytes"]
    if offline:
        return
    cost.hover = middle([point(page, "hover", i) for i in range(TIMES)])
    cost.click = middle([point(page, "click", i) for i in range(TIMES)])
    if size[-1] > WHOLE:
        cost.whole = middle([point(page, "whole", i) for i in range(TIMES)])
        cost.detail = middle([zoom(page, i, size[-1]) for i in range(ZOOMS)])


def point(page: Browser, action: str, i: int) -> float | None:
    """Hover over the i-th target or click it; return the milliseconds until the answer."""
    place = page.js("bench.target", action, i)
    if place is None:
        return None
    if action in ("click", "whole"):
        page.mouse("Moved", place)
        page.js("bench.rest")
        page.js("bench.listen", "click", action)
        page.mouse("Pressed", place)
        page.mouse("Released", place)
    else:
        page.js("bench.listen", "pointermove", action)
        page.mouse("Moved", place)
    return page.js("bench.taken")


def zoom(page: Browser, i: int, n: int) -> float:
    """Zoom into one place of the open head until single weights have room, and out again."""
    page.mouse("Moved", page.js("bench.target", "zoom", i))
    page.js("bench.focus", "zoom")
    for _ in range(math.ceil(math.log2(n / WHOLE))):
        page.press("+")
    page.js("bench.listen", "keydown", "zoom")
    page.press("+")
    taken = page.js("bench.taken")
    page.press("0")
    return taken


def middle(times: list[float | None]) -> float | None:
    found = [t for t in times if t is not None]
    return median(found) if found else None


# --- the report -----------------------------------------------------------------------------------


def compare(
    lab: Lab, viewers: tuple[Viewer, ...], sizes: list[Size], repeats: int
) -> tuple[dict[tuple[Size, str], list[Cost]], dict[str, Cost]]:
    """The costs by size and viewer, one of each round; and those without network, by viewer."""
    offline = {viewer.name: measured(lab, viewer, SMALL, offline=True) for viewer in viewers}
    costs: dict[tuple[Size, str], list[Cost]] = {}
    for turn in range(repeats):
        for size in sizes:
            for viewer in viewers[:: -1 if turn % 2 else 1]:
                before = costs.setdefault((size, viewer.name), [])
                too_long = viewer is not OURS and size[-1] > PEERS_UP_TO
                if too_long or any(not works(cost) for cost in before):
                    continue
                before.append(measured(lab, viewer, size))
                print(f"{by(size)}  {viewer.name}  {numbers(before[-1:])}", file=sys.stderr)
    return costs, offline


def table(costs: dict[tuple[Size, str], list[Cost]], offline: dict[str, Cost]) -> Iterable[str]:
    yield (
        f"{'size':>10}  {'viewer':<18}  {'usable s':>8}  {'MB':>7}  "
        f"{'hover ms':>8}  {'click ms':>8}  {'whole ms':>8}  {'detail ms':>9}  offline"
    )
    for (size, name), rounds in costs.items():
        if not rounds:
            continue
        without = "yes" if works(offline[name]) else "no"
        yield f"{by(size):>10}  {name:<18}  {numbers(rounds)}  {without}"


def works(cost: Cost) -> bool:
    return cost.seconds is not None and math.isfinite(cost.seconds)


def by(size: Size) -> str:
    return "×".join(map(str, size))


def numbers(rounds: list[Cost]) -> str:
    last = rounds[-1]
    if last.seconds is None:
        return f"{last.problem:<50.50}"
    seconds, sent, hover, click, whole, detail = (
        middle([getattr(cost, name) for cost in rounds])
        for name in ("seconds", "sent", "hover", "click", "whole", "detail")
    )
    rest = "  ".join(
        f"{'–' if ms is None else f'{ms:.0f}':>{width}}"
        for ms, width in [(hover, 8), (click, 8), (whole, 8), (detail, 9)]
    )
    problem = f" ({last.problem})" if last.problem else ""
    usable = f"> {LIMIT}" if math.isinf(seconds) else f"{seconds:.2f}"
    return f"{usable:>8}  {sent / MB:7.2f}  {rest}{problem}"


def targets(costs: dict[tuple[Size, str], list[Cost]]) -> Iterator[tuple[bool, str]]:
    """Whether attnviz is as much faster and smaller than the peer as it should be, in words."""
    pairs = zip(costs[HEADLINE, OURS.name], costs[HEADLINE, PEER], strict=False)
    both = [(ours, peer) for ours, peer in pairs if works(ours) and peer.seconds is not None]
    if not both:
        yield False, f"{by(HEADLINE)}: attnviz and {PEER} could not be compared"
        return
    faster = median(min(peer.seconds, LIMIT) / ours.seconds for ours, peer in both)
    smaller = median(peer.sent / ours.sent for ours, peer in both)
    place = f"{by(HEADLINE)}, {PEER} ÷ attnviz"
    yield faster >= FASTER, f"{place}: {faster:.1f} × the seconds until usable ≥ {FASTER}"
    yield smaller >= SMALLER, f"{place}: {smaller:.1f} × the bytes ≥ {SMALLER}"


def size_of(text: str) -> Size:
    layers, heads, n = map(int, text.split("x"))
    return layers, heads, n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=size_of,
        default=[size_of(text) for text in SIZES.split()],
        help=f"LAYERSxHEADSxTOKENS; the peers take part up to {PEERS_UP_TO} tokens",
        metavar="SIZE",
    )
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if options.peers and not PEERS.exists():
        parser.error("the peers are not installed: run the first command of this file")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, too
    start = time.perf_counter()
    viewers = VIEWERS if options.peers else (OURS,)
    with jupyterlab(viewers) as lab:
        costs, offline = compare(lab, viewers, options.sizes, options.repeats)
    print(*table(costs, offline), "", sep="\n")
    compared = options.peers and HEADLINE in options.sizes
    met = list(targets(costs)) if compared else []
    print(*(f"{'met    ' if fine else 'NOT MET'}  {words}" for fine, words in met), sep="\n")
    print(f"\n{time.perf_counter() - start:.0f} s")
    sys.exit(not all(fine for fine, _ in met))


if __name__ == "__main__":
    main()
