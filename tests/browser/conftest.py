"""A JupyterLab with settings of its own, a real browser, and notebooks opened in it."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
SETTINGS = {  # no news, and nothing saved but what a test saves
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # past any proxy

OPEN = """async ({ path, kernel }) => {
    const app = window.jupyterapp;
    await app.restored;
    if (!kernel) {
        const registry = app.docRegistry, usual = registry.getKernelPreference.bind(registry);
        registry.getKernelPreference = (...file) => ({ ...usual(...file), shouldStart: false });
    }
    await app.commands.execute('docmanager:open', { path });
    const panel = app.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    if (kernel) await panel.sessionContext.session.kernel.info;
    window.panel = panel;
}"""
CONTRAST = """(element) => {  // as WCAG 2 defines it; 21 is black on white
    if (!element.isConnected) return null;  // drawn anew since it was found: it has no colors now
    const context = new OffscreenCanvas(1, 1).getContext('2d');
    const paint = (color) => {  // over what is there already
        context.fillStyle = color;
        context.fillRect(0, 0, 1, 1);
        const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((c) => linear(c / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let paper = paint('white');
    const behind = [];
    for (let node = element; node; node = node.parentElement)
        behind.unshift(getComputedStyle(node).backgroundColor);
    for (const color of behind) paper = paint(color);
    const ink = paint(getComputedStyle(element).color);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
}"""
ASK = """async (code) => {
    let said = '';
    const future = window.panel.sessionContext.session.kernel.requestExecute({ code });
    future.onIOPub = ({ header, content }) => {
        if (header.msg_type === 'stream') said += content.text;
        if (header.msg_type === 'error') said += `${content.ename}: ${content.evalue}`;
    };
    await future.done;
    return said;
}"""


@pytest.fixture(scope="session")
def browser_path():
    """Where Chromium is; without one the tests are skipped, but on CI they fail."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    reason = f"needs a browser on the PATH: {', '.join(BROWSERS)}"
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def lab(browser_path, tmp_path_factory):
    """A running server, as (address, token, folder that it serves)."""
    home = tmp_path_factory.mktemp("lab")
    served = shutil.copytree(
        NOTEBOOKS, home / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for name, value in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        *("--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={served}"),
        "--LabApp.expose_app_in_browser=True",
    ]
    log = home / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            command,
            env={**os.environ, **{name: str(home / place) for name, place in folders.items()}},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    info = home / "runtime" / f"jpserver-{server.pid}.json"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                found = json.loads(info.read_text(encoding="utf-8"))
                DIRECT.open(f"{found['url']}api", timeout=5).close()
                break
            except (OSError, ValueError):
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')}")
                time.sleep(0.1)
        yield found["url"].rstrip("/"), found["token"], served
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


class Picture:
    """One attention picture on the page, used as a reader uses it."""

    def __init__(self, root):
        self.root = root
        self.page = root.page
        self.cells = root.locator("canvas.attnviz-cells")
        self.title = root.locator(".attnviz-title")
        self.readout = root.locator(".attnviz-readout")
        self.value = root.locator(".attnviz-value")
        self.pinned = root.locator(".attnviz-pinned")
        self.table = root.locator(".attnviz-table")

    def labels(self, axis):
        return self.root.locator(f".attnviz-label-{axis}:not(.attnviz-current)")

    def place(self, query, key, n_keys=None):
        """Return where in the canvas the middle of a cell is."""
        n_keys = n_keys or self.labels("key").count()
        size = self.cells.evaluate("canvas => canvas.clientWidth") / n_keys
        return {"x": (key + 0.5) * size, "y": (query + 0.5) * size}

    def hover(self, query, key, n_keys=None):
        self.cells.hover(position=self.place(query, key, n_keys))

    def click(self, query, key):
        self.cells.click(position=self.place(query, key))

    def pixels(self):
        return self.cells.evaluate("canvas => canvas.toDataURL()")

    def wait_for_other_pixels(self, than):
        self.page.wait_for_function(
            "([canvas, than]) => canvas.toDataURL() !== than",
            arg=[self.cells.element_handle(), than],
        )


def problems_of(page, address):
    """A list to which everything is added that goes wrong on the page, or goes elsewhere."""
    problems = []
    here = urlsplit(address).netloc

    def check_address(url):
        scheme, place = urlsplit(url)[:2]
        if scheme not in {"data", "blob"} and place != here:
            problems.append(f"request to another machine: {url}")

    def check_message(message):
        if message.type == "error":
            problems.append(f"console error: {message.text}")

    page.on("request", lambda request: check_address(request.url))
    page.on("websocket", lambda socket: check_address(socket.url))
    page.on("pageerror", lambda error: problems.append(f"page error: {error.stack}"))
    page.on("console", check_message)
    return problems


class Notebook:
    """A notebook opened in JupyterLab: its page, its kernel, and what went wrong."""

    def __init__(self, page, address):
        self.page = page
        self.all_problems = problems_of(page, address)
        self.theme_was_set = False

    @property
    def problems(self):
        """What went wrong, but for one thing: now and then, when its theme changes, JupyterLab
        takes a style sheet away twice, which is no fault of a view."""

        def own(problem):
            return "'removeChild'" in problem and "/jlab_core." in problem

        return [p for p in self.all_problems if not (self.theme_was_set and own(p))]

    def picture(self, number=0):
        """Return one of the attention pictures, counted from the top."""
        return Picture(self.page.locator(".attnviz-heatmap").nth(number))

    def run_all(self):
        self.page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def python(self, expression):
        """Return the value of a Python expression in the kernel, by way of JSON."""
        said = self.run(f"import json; print(json.dumps({expression}))")
        try:
            return json.loads(said)
        except ValueError:
            raise AssertionError(f"{expression!r} in the kernel: {said}") from None

    def run(self, code):
        """Run code in the kernel; return what it prints, or its error."""
        return self.page.evaluate(ASK, code)

    def wait_for_python(self, expression, wanted):
        """Wait until the expression has this value: what the page sends takes a moment."""
        deadline = time.monotonic() + 10
        while (value := self.python(expression)) != wanted:
            assert time.monotonic() < deadline, f"{expression} is {value}, not {wanted}"
            self.page.wait_for_timeout(50)

    def state(self):
        """Return what JupyterLab's own keys would change: active cell, mode, number of cells."""
        return self.page.evaluate(
            "(({ content: { activeCellIndex, mode, widgets } }) =>"
            " [activeCellIndex, mode, widgets.length])(window.panel)"
        )

    def cells(self):
        """Return the cells as they are now, as a saved file would hold them."""
        return self.page.evaluate("window.panel.context.model.toJSON().cells")


@pytest.fixture(scope="module")
def browser(browser_path):
    """A running Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_notebook(browser, lab):
    """A function that opens a notebook of the served folder in a new window."""
    address, token, _ = lab
    windows = browser.new_context(viewport={"width": 1200, "height": 900})  # share a cache
    windows.set_default_timeout(15_000)
    expect.set_options(timeout=10_000)

    def open_notebook(name, kernel=True, trusted=False):
        if trusted:
            there, allowed = f"{address}/api/contents/{name}/trust", f"token {token}"
            wish = urllib.request.Request(there, method="POST", headers={"Authorization": allowed})
            DIRECT.open(wish, timeout=30).close()
        page = windows.new_page()
        notebook = Notebook(page, address)
        workspace = f"{address}/lab/workspaces/{Path(name).stem}"  # no two windows share one
        page.goto(f"{workspace}?token={token}", timeout=60_000)
        page.wait_for_function("window.jupyterapp", timeout=60_000)
        page.evaluate(OPEN, {"path": name, "kernel": kernel})
        return notebook

    yield open_notebook
    for page in windows.pages:
        page.evaluate("window.panel?.sessionContext.shutdown()")  # ends the kernel


@pytest.fixture(scope="module")
def run_cell(open_notebook, lab):
    """A function that opens a new notebook with one code cell, between two others, and runs it."""
    *_, served = lab

    def run_cell(name, code):
        cells = [
            {"cell_type": "markdown", "id": f"cell{i}", "metadata": {}, "source": source}
            for i, source in enumerate(["# Before", code, "# After"])
        ]
        cells[1].update(cell_type="code", outputs=[], execution_count=None)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content = {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": kernel},
            "cells": cells,
        }
        (served / f"{name}.ipynb").write_text(json.dumps(content), encoding="utf-8")
        notebook = open_notebook(f"{name}.ipynb")
        notebook.run_all()
        return notebook

    return run_cell


@pytest.fixture(scope="module")
def open_page(browser):
    """A function that opens a saved page from its file, with the network refused.

    What it returns has `problems`, like a notebook.
    """
    alone = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    alone.set_default_timeout(15_000)

    def open_page(file):
        page = alone.new_page()
        page.problems = problems_of(page, "")
        page.goto(Path(file).as_uri())
        return page

    yield open_page
    alone.close()


@pytest.fixture(scope="module")
def set_theme():
    """A function that switches JupyterLab's theme, "Light" or "Dark"."""

    def set_theme(notebook, name):
        name = f"JupyterLab {name}"
        notebook.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", name
        )
        expect(notebook.page.locator("body")).to_have_attribute("data-jp-theme-name", name)
        notebook.theme_was_set = True

    return set_theme


@pytest.fixture(scope="session")
def picture_of():
    """A function from an element to the attention picture inside it."""
    return Picture


@pytest.fixture(scope="session")
def contrast():
    """A function from a locator to the contrast of its text, as WCAG 2 defines it."""

    def contrast(locator):
        while (ratio := locator.evaluate(CONTRAST)) is None:
            pass
        return ratio

    return contrast
