"""A view as one self-contained page: its browser code, its numbers, and nobody to be asked."""

import base64
import json
import zlib
from html import escape
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnviz.views.visible import sendable

if TYPE_CHECKING:
    from attnviz.views.view import View

_HERE = Path(__file__).parent
_NOT_OURS = {"layout", "tabbable", "tooltip"}  # traits of every ipywidget

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="generator" content="attnviz">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<main id="view"></main>
<noscript>This picture of attention needs JavaScript.</noscript>
<script type="application/json" id="state">{state}</script>
<script type="text/plain" id="bytes">{bytes}</script>
<script type="module">
{code}
</script>
</body>
</html>
"""


def page(view: "View") -> str:
    """Return a view as HTML that works from a file, with neither kernel nor network."""
    pool = _Pool()
    names = [n for n in view.keys if not n.startswith("_") and n not in _NOT_OURS]
    state = {name: getattr(view, name) for name in names} | view._page_state()
    answers = [
        [question, answer, [pool.put(b) for b in buffers]]
        for question, (answer, buffers) in view._page_answers()
    ]
    state = pool.pack(state)
    stub = (_HERE / "page.js").read_text(encoding="utf-8")
    widget = view._esm.replace("export default", "const widget =")
    return _PAGE.format(
        title=escape(sendable(view.title or "Attention")),
        style=(_HERE / "static" / "page.css").read_text(encoding="utf-8") + view._css,
        state=_dump({"state": state, "answers": answers}).replace("<", "\\u003c"),
        bytes=base64.b64encode(_gzip(b"".join(pool.parts))).decode(),
        code=f"{widget}\n{stub}",
    )


def strict(value: Any) -> Any:
    """The value as JSON can hold it, which has no nan and no infinity: these become words."""
    if isinstance(value, float) and not isfinite(value):
        return str(float(value))
    if isinstance(value, dict):
        return {name: strict(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    return value


def _dump(value: object) -> str:
    return json.dumps(strict(value), allow_nan=False)  # NaN would leave the whole page blank


def _gzip(data: bytes) -> bytes:
    """Compressed; numbers that hardly repeat get 5 % smaller so than with gzip.compress."""
    packer = zlib.compressobj(6, wbits=31, strategy=zlib.Z_FILTERED)
    return packer.compress(data) + packer.flush()


class _Pool:
    """Bytes put one after the other, to be compressed together."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.length = 0

    def pack(self, value: object) -> object:
        """The value, with {"bytes": where} in the place of all bytes inside it."""
        if isinstance(value, bytes):
            return {"bytes": self.put(value)}
        if isinstance(value, dict):
            return {name: self.pack(inner) for name, inner in value.items()}
        return [self.pack(inner) for inner in value] if isinstance(value, list) else value

    def put(self, data: bytes) -> list[int]:
        """Add bytes; return where they are: (first, after the last)."""
        self.parts.append(data)
        start, self.length = self.length, self.length + len(data)
        return [start, self.length]
