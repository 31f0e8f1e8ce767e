"""Attention laid over the image that a vision transformer saw, patch by patch."""

import io
from collections.abc import Iterator, Sequence
from math import hypot
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import traitlets
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from PIL import Image  # comes with matplotlib

from attnviz.checks import check_share
from attnviz.views.bundle import module, style
from attnviz.views.figures import COLOR_MAP
from attnviz.views.inputs import check_index, check_tokens, to_array
from attnviz.views.no_key import no_key, to_no_key
from attnviz.views.refusing import validate
from attnviz.views.source import check_layers, check_one_size
from attnviz.views.view import Answer, View
from attnviz.views.writing import dress, label, plain

SIDE = 512  # pixels of the picture that is sent
AT_ONCE = 2**20  # bytes of weights sent at first, and with each answer
PAGE = 2**23  # bytes of weights in a saved page
MOST_EXTRA = 16  # tokens that are no patch, before the patches
COARSE = 112  # pixels: a smaller image shows them in the figure
LONGEST = 24  # characters of a token in the figure
ROUNDING = 1e-3  # resizing may leave 0 to 1 by so much


class OverlayView(View):
    """The live view that `overlay` returns.

    selection: dict of layer, head, query and key, each a number or None. None is the last layer,
    the mean of all heads, and the first query: [CLS] if there is one, or the middle patch. Queries
    and keys count as in the weights, so that [CLS] is 0 and the patches come after it. The key is
    the patch whose number stays in sight.
    strength: how much of the picture the colours cover, from 0 to 1.
    """

    _esm = module(Path(__file__).with_name("overlay.js"))
    _css = style("view", "overlay")

    picture = traitlets.Bytes().tag(sync=True)  # PNG, at most SIDE × SIDE
    grid = traitlets.Dict().tag(sync=True)  # rows, columns, extra, first query, width, height
    layers = traitlets.List().tag(sync=True)  # the name and the heads of each, and has it sinks
    tokens = traitlets.List(traitlets.Unicode()).tag(sync=True)  # queries that are no patches
    one_layer = traitlets.Bool().tag(sync=True)  # rows come layer by layer: all would be too much
    rows = traitlets.Dict().tag(sync=True)  # of one query, as it was asked for last
    strength = traitlets.TraitType(0.6).tag(sync=True, page=True)  # checked below

    def __init__(
        self,
        seen: object,
        image: ArrayLike,
        patch: int | tuple[int, int] = 16,
        *,
        tokens: Sequence[str] | None = None,
        item: int = 0,
        title: str = "",
    ):
        pixels, patch = check_image(image), check_patch(patch)
        self._layers = check_layers(seen, item)
        self._n_queries, self._n_keys = check_one_size(self._layers)
        grid = check_grid(pixels.shape[:2], patch, self._n_keys)
        tokens = _check_queries(self._n_queries, self._n_keys, tokens)
        heads = [layer.heads for layer in self._layers]
        self._sinks = any(layer.sinks for layer in self._layers)
        one_layer = not fits(sum(heads), max(heads), self._n_keys + self._sinks)
        middle = grid["rows"] // 2 * grid["columns"] + grid["columns"] // 2
        self._first = 0 if tokens or grid["extra"] else middle
        super().__init__(
            title=title,
            tokens=tokens,
            one_layer=one_layer,
            grid={**grid, "first": self._first},
            layers=[
                {"name": layer.name, "heads": layer.heads, "sinks": layer.sinks}
                for layer in self._layers
            ],
            picture=as_png(pixels),
            rows=self._read(self._first, len(heads) - 1 if one_layer else None),
        )

    def figure(self) -> Figure:
        """The image under the weights of the chosen layer, head and query, with a colour bar.

        Raises RuntimeError when these weights were not asked for before and the record was freed.
        """
        layer, head, query = self._shown()
        row, extra = self._row(), self.grid["extra"]
        of = f"head {head}" if head is not None else f"mean of {self._layers[layer].heads} heads"
        figure = overlay_figure(
            np.asarray(Image.open(io.BytesIO(self.picture)).convert("RGB")),
            row[extra : self._n_keys].reshape(self.grid["rows"], self.grid["columns"]),
            strength=self.strength,
            outlined=None if self.tokens or query < extra else query - extra,
        )
        said = f"{self._name(query)}: layer {layer}, {of}"
        said += f"\n{to_no_key(row[-1])}" if self._layers[layer].sinks else ""
        dress(figure.axes[0].set_title(f"{plain(self.title)}\n{said}" if self.title else said))
        return figure

    def _shown(self) -> tuple[int, int | None, int]:
        """The layer, the head (None: the mean of all) and the query that the selection means."""
        layer, head, query = (self.selection[axis] for axis in ("layer", "head", "query"))
        layer = len(self._layers) - 1 if layer is None else layer
        if head is not None and head >= self._layers[layer].heads:
            head = None
        return layer, head, self._first if query is None else query

    def _name(self, query: int) -> str:
        """What a query is called in a figure."""
        patch = query - self.grid["extra"]
        if self.tokens:
            return label(self.tokens[query], LONGEST)
        if patch < 0:
            return "[CLS]" if query == 0 else f"extra {query}"
        row, column = divmod(patch, self.grid["columns"])
        return f"patch at row {row}, column {column}"

    def _question(self) -> dict[str, int]:
        """What the page asks to see the selection."""
        layer, _, query = self._shown()
        return {"query": query, "layer": layer} if self.one_layer else {"query": query}

    def _read(self, query: int, layer: int | None = None) -> dict[str, Any]:
        """The rows of one query: 16 bits for each layer (or the one), head and key.

        With sinks in any layer, what goes to no key stands behind the keys.
        """
        layers = self._layers if layer is None else [self._layers[layer]]
        parts = [one.rows(slice(None), slice(query, query + 1))[:, 0] for one in layers]
        if self._sinks:
            rests = [no_key(rows) * one.sinks for rows, one in zip(parts, layers, strict=True)]
            parts = [np.column_stack(both) for both in zip(parts, rests, strict=True)]
        return {"query": query, "layer": layer, "values": b"".join(map(pack, parts))}

    def _known(self) -> dict[str, Any]:
        """The rows of the selection: those at hand, or read anew."""
        question = self._question()
        return self.rows if question.items() <= self.rows.items() else self._read(**question)

    def _row(self) -> NDArray[np.float64]:
        """The weights that the view shows, (key,), and, with sinks, what goes to no key."""
        layer, head, _ = self._shown()
        heads = [one.heads for one in self._layers]
        rows = unpack(self._known()["values"]).reshape(-1, self._n_keys + self._sinks)
        start = 0 if self.one_layer else sum(heads[:layer])
        rows = rows[start : start + heads[layer]]
        return rows.mean(0) if head is None else rows[head]

    def _sizes(self) -> dict[str, int]:
        return {
            "layer": len(self._layers),
            "head": max(layer.heads for layer in self._layers),
            "query": self._n_queries,
            "key": self._n_keys,
        }

    def _answer(self, question: dict[str, Any]) -> Answer:
        if not isinstance(question, dict) or question.keys() != self._question().keys():
            return super()._answer(question)
        sizes = self._sizes()
        wanted = {axis: check_index(axis, i, sizes[axis]) for axis, i in question.items()}
        # kept in the widget's state, so that a notebook opened without Python has it too
        self.rows = self._read(**wanted)
        return {}, [self.rows["values"]]

    @validate("strength")
    def _check_strength(self, proposal: traitlets.Bunch) -> float:
        return check_share("strength", proposal["value"])

    def _page_state(self) -> dict[str, Any]:
        return {"rows": self._known()}

    def _page_answers(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        room = PAGE
        for question in self._page_questions():
            values = self._read(**question)["values"]
            room -= len(values)
            if room < 0:
                return
            yield question, ({}, [values])

    def _page_questions(self) -> Iterator[dict[str, int]]:
        """All that a page could ask, in the order of what a reader will miss first."""
        layer, _, query = self._shown()
        grid, extra = self.grid, self.grid["extra"]
        if self.tokens:
            order = range(self._n_queries)
        else:  # from the middle of the image outwards
            middle = (grid["rows"] - 1) / 2, (grid["columns"] - 1) / 2
            spots = [divmod(i, grid["columns"]) for i in range(self._n_keys - extra)]
            away = [hypot(row - middle[0], column - middle[1]) for row, column in spots]
            order = [*range(extra), *(extra + i for i in np.argsort(away, kind="stable").tolist())]
        order = list(dict.fromkeys([query, self._first, *order]))
        if not self.one_layer:
            yield from ({"query": query} for query in order)
            return
        layers = dict.fromkeys([layer, *range(len(self._layers))])
        yield from ({"query": q, "layer": i} for q in order[:2] for i in layers)
        yield from ({"query": q, "layer": layer} for q in order[2:])

    def __repr__(self) -> str:
        size = f"{self.grid['rows']} × {self.grid['columns']} patches"
        return f"OverlayView({len(self._layers)} layers, {size})"


def pack(weights: NDArray) -> bytes:
    """Weights as 16 bits each, in steps of 1/65535."""
    return np.round(np.clip(weights, 0, 1) * 65535).astype("<u2").tobytes()


def unpack(values: bytes) -> NDArray[np.float64]:
    """The weights that were packed."""
    return np.frombuffer(values, "<u2") / 65535


def fits(all_heads: int, most_heads: int, n_keys: int) -> bool:
    """Whether the rows of all layers may be sent at once; ValueError when not even one's may.

    all_heads: in all layers together.   most_heads: in one layer.
    """
    if 2 * most_heads * n_keys > AT_ONCE:
        raise ValueError(
            f"seen has {most_heads} heads with {n_keys} keys: a layer may have at most "
            f"{AT_ONCE // 2} weights for each query"
        )
    return 2 * all_heads * n_keys <= AT_ONCE


def check_image(image: ArrayLike) -> NDArray[np.uint8]:
    """Return an image as uint8 (height, width, 3), or raise; what is allowed says `overlay`."""
    wanted = "image must be (height, width) or (height, width, 3), or (1 or 3, height, width)"
    image = _as_rgb(image) if isinstance(image, Image.Image) else image
    try:
        pixels = to_array(image)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"image must be an array of numbers: {error}") from error
    channels = (1, 3)
    if pixels.ndim == 3 and pixels.shape[0] in channels and pixels.shape[2] not in channels:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in channels or 0 in pixels.shape:
        hint = ": choose one of the batch, such as image[0]" * (pixels.ndim == 4)
        if pixels.ndim == 3 and 4 in (pixels.shape[0], pixels.shape[2]):
            hint = ": leave its transparency out, such as image[..., :3]"
        raise ValueError(f"{wanted}, got shape {pixels.shape}{hint}")
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # neither may be nan
            raise ValueError(
                f"image has numbers from {low:.4g} to {high:.4g}, expected 0 to 1: undo the "
                "normalisation first (image * std + mean), or divide by 255"
            )
        pixels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise TypeError(f"image must be uint8 (0 to 255) or float (0 to 1), got {pixels.dtype}")
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def _as_rgb(image: Image.Image) -> NDArray:
    """The colours of a PIL image of any mode, (height, width, 3), or its numbers from 0 to 1."""
    if image.mode == "F" or image.mode.startswith("I"):
        numbers = np.asarray(image)
        if image.mode == "F" and 0 <= numbers.min() <= numbers.max() <= 1:
            return numbers
        raise ValueError(
            f"image has mode {image.mode} and numbers from {numbers.min():.4g} to "
            f"{numbers.max():.4g}, but not which of them is white: if it is 255, give "
            'image.convert("RGB"), or else np.asarray(image) divided by it'
        )
    if image.mode not in ("LA", "La", "P", "PA", "RGBA", "RGBa"):
        return np.asarray(image.convert("RGB"))
    image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    if image.getchannel("A").getextrema()[0] < 255:
        raise ValueError(
            "image has transparent pixels, and models differ in what they see there: give what "
            'this one saw, most often image.convert("RGB")'
        )
    return np.asarray(image)[:, :, :3]


def check_patch(patch: int | tuple[int, int]) -> tuple[int, int]:
    """Return a patch's height and width in pixels, or raise TypeError or ValueError."""
    sides = tuple(patch) if isinstance(patch, tuple | list) else (patch, patch)
    for side in sides:
        if isinstance(side, bool) or not isinstance(side, int | np.integer):
            raise TypeError(f"patch must be a whole number or (height, width), got {patch!r}")
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"patch must be a positive number or (height, width), got {patch!r}")
    return int(sides[0]), int(sides[1])


def check_grid(size: tuple[int, int], patch: tuple[int, int], n_keys: int) -> dict[str, int]:
    """Return how an image of this size is cut into patches, or raise ValueError.

    size, patch: height and width in pixels.
    n_keys: as many as there are patches, or up to 16 more for tokens before them.
    """
    image, one = (f"{height} × {width}" for height, width in (size, patch))
    if size[0] % patch[0] or size[1] % patch[1]:
        raise ValueError(f"an image of {image} cannot be cut into patches of {one}: give the size "
                         "that the model saw")  # fmt: skip
    rows, columns = size[0] // patch[0], size[1] // patch[1]
    extra = n_keys - rows * columns
    if not 0 <= extra <= MOST_EXTRA:
        raise ValueError(
            f"seen has {n_keys} keys, but an image of {image} in patches of {one} has "
            f"{rows} × {columns} = {rows * columns} patches"
            + f", and at most {MOST_EXTRA} tokens may come before them"
            * (extra > 0)
        )
    return {"rows": rows, "columns": columns, "extra": extra, "height": size[0], "width": size[1]}


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """An image (height, width, 3) as a PNG of at most SIDE pixels a side, averaged by area."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > SIDE:
        size = [max(1, round(side * SIDE / max(picture.size))) for side in picture.size]
        picture = picture.resize(size, Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def overlay_figure(
    pixels: NDArray[np.uint8], weights: NDArray, *, strength: float, outlined: int | None
) -> Figure:
    """An image under weights as a matplotlib figure, in the look of the `overlay` widget.

    pixels: (height, width, 3).   weights: (row, column), one for each patch.
    strength: how much of the picture the colours cover.   outlined: the patch that asks.
    """
    height, width = pixels.shape[:2]
    rows, columns = weights.shape
    scale = 5 / max(height, width)
    figure = Figure(figsize=(max(3, width * scale) + 1.2, max(1.5, height * scale) + 0.6))
    figure.set_layout_engine("constrained")
    ax = figure.add_subplot()
    extent = (0, width, height, 0)
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    faded = min(1, 2 * strength)  # as on the page, so that every hue is a weight's
    base = pixels * (1 - faded) + grey[:, :, None] * faded
    smooth = "nearest" if max(height, width) < COARSE else "bilinear"
    ax.imshow(base.round().astype(np.uint8), extent=extent, interpolation=smooth)
    norm = Normalize(0, weights.max() or 1)
    ax.imshow(weights, cmap=COLOR_MAP, norm=norm, alpha=strength, extent=extent)
    if outlined is not None:
        row, column = divmod(outlined, columns)
        size = width / columns, height / rows
        for color, line in [("black", 4), ("white", 2)]:
            spot = column * size[0], row * size[1]
            ax.add_patch(Rectangle(spot, *size, fill=False, color=color, linewidth=line))
    ax.set_axis_off()
    colors = ScalarMappable(norm, matplotlib.colormaps[COLOR_MAP])
    bar = figure.colorbar(colors, ax=ax, shrink=0.8, aspect=30, pad=0.03)
    bar.set_label("attention weight of a patch", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    bar.outline.set_visible(False)
    return figure


def _check_queries(n_queries: int, n_keys: int, tokens: Sequence[str] | None) -> list[str]:
    """Return the labels of queries that are no patches; none when each key is a query too."""
    if tokens is not None:
        return check_tokens("tokens", tokens, n_queries)
    if n_queries != n_keys:
        raise ValueError(
            f"seen has {n_queries} queries and {n_keys} keys: give tokens, a label for each query"
        )
    return []


def overlay(
    seen: object,
    image: ArrayLike,
    patch: int | tuple[int, int] = 16,
    *,
    tokens: Sequence[str] | None = None,
    item: int = 0,
    title: str = "",
) -> OverlayView:
    """Lay a vision transformer's attention over the image: click a patch to see where it looks.

    seen:   a capture, records, or for each layer an array or tensor (batch, head, query, key) or
            (head, query, key), such as transformers' `outputs.attentions`.
    image:  what the model saw, in the size it saw: (height, width) or (height, width, 3), or, as
            models take it, (1, height, width) or (3, height, width); an array or a tensor, uint8
            from 0 to 255 or float from 0 to 1; or a PIL image, whose mode becomes RGB. Refused are
            transparent pixels and modes that do not say which number is white, as I;16.
    patch:  the side of a patch in pixels of that image, or (height, width).
    tokens: labels of the queries where they are no patches, as in cross-attention from a text.
    item:   which of the batch.
    title:  a line above the picture.
    The keys are the patches, row by row, after up to 16 tokens that are none, such as [CLS].
    At most 2 MB are sent at first: the image, shrunk to at most 512 pixels a side, and for one
    query the weights of all layers and heads, 16 bits each (of one layer, where all would be more
    than 1 MB). The rows of other queries are sent when the reader asks for them. A saved page holds
    as many as fit in 8 MB, the chosen one, [CLS] and the middle of the image first.
    Returns the widget; its `selection` follows the clicks, its `save` writes a page or a figure.
    Where a share goes to no key (sinks), it is said for each query.
    Raises TypeError or ValueError for weights, an image or a patch that are none or do not fit
    together, or records of several forward passes; IndexError for an item that is not in the batch.
    """
    return OverlayView(seen, image, patch, tokens=tokens, item=item, title=title)
