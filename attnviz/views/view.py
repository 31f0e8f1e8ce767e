"""What all views share: a selection, questions from the page, saving, and a still picture."""

import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import traitlets
from matplotlib.figure import Figure

from attnviz.views.figures import palette, png
from attnviz.views.inputs import check_index
from attnviz.views.page import page, strict
from attnviz.views.refusing import RefusingWidget, validate
from attnviz.views.saving import write
from attnviz.views.visible import sendable

NOTHING = {"layer": None, "head": None, "query": None, "key": None}
Answer = tuple[dict[str, Any], list[bytes]]  # what JSON can hold, and numbers as bytes


class View(RefusingWidget):
    """A live view of attention; subclasses say what is drawn.

    selection: dict of layer, head, query and key, each a number or None. It follows the reader's
    clicks, and moves the marks in the picture when it is assigned (of some or all of the four).
    Several views can share one selection with `traitlets.link((a, "selection"), (b, "selection"))`.
    """

    palette = traitlets.Bytes().tag(sync=True)  # 256 colours, 3 bytes each
    title = traitlets.Unicode().tag(sync=True)
    selection = traitlets.Dict(default_value=NOTHING).tag(sync=True, page=True)

    def __init__(self, **traits: Any):
        super().__init__(palette=palette(), **traits)
        self.on_msg(self._hear)

    def figure(self) -> Figure:
        """What the view shows now, as a matplotlib figure."""
        raise NotImplementedError

    def save(self, path: str | Path) -> None:
        """Save the view as a page that needs neither kernel nor network, or as a figure.

        path: ends in .html for the page; .png, .svg or .pdf for the figure.
        A file that attnviz wrote before is replaced, once the new one is complete; of a link,
        what it leads to is replaced.
        Raises ValueError for another ending, FileExistsError for a file that something else wrote,
        a device or a pipe, IsADirectoryError for a folder, FileNotFoundError when there is no such
        folder, OSError for what cannot be written.
        """
        write(Path(path), page=lambda: page(self), figure=self.figure)

    def _sizes(self) -> dict[str, int]:
        """How many of each axis of the selection there are, as far as the view knows."""
        raise NotImplementedError

    def _answer(self, question: dict[str, Any]) -> Answer:
        """Answer what the page asks: numbers that it did not get at first.

        Raises TypeError or ValueError for a question that is none, or asks for what is not there.
        """
        raise ValueError(f"this view has no answer to {question}")

    def _page_state(self) -> dict[str, Any]:
        """Traits that differ in a saved page, where nobody can be asked for more."""
        return {}

    def _page_answers(self) -> Iterator[tuple[dict[str, Any], Answer]]:
        """The questions that a saved page can answer by itself, with their answers."""
        return iter(())

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The traits as they go to the page."""
        return sendable(super().get_state(*args, **kwargs))

    def _send(self, msg: dict[str, Any], buffers: list | None = None) -> None:
        super()._send(sendable(msg), buffers)  # answers too, and what the page said, sent back

    def _hear(self, _: object, content: dict[str, Any], __: object) -> None:
        if not isinstance(content, dict) or "question" not in content:
            return
        try:
            answer, buffers = self._answer(content["question"])
        except Exception as error:  # anything at all: the reader looks at the page, not at a log
            reason = str(error) or traceback.format_exception_only(error)[-1].strip()
            self.send({"number": content.get("number"), "error": reason})
        else:
            self.send({"number": content.get("number"), "answer": strict(answer)}, buffers)

    @staticmethod
    def _trait_to_json(value: Any, _: object) -> Any:  # of every trait that is sent
        return strict(value)

    @validate("selection")
    def _check_selection(self, proposal: traitlets.Bunch) -> dict[str, int | None]:
        return check_selection(proposal["value"], self._sizes())

    def _give_up_what_is_gone(self) -> None:
        """Let go of a selection that the data shown now does not have."""
        if any((self.selection[a] or 0) >= n for a, n in self._sizes().items()):
            self.selection = {**self.selection, "query": None, "key": None}

    def _repr_mimebundle_(self, **kwargs: object) -> tuple[dict, dict]:
        data, metadata = sendable(super()._repr_mimebundle_(**kwargs))
        with suppress(RuntimeError):  # of a record that was freed: the live view says so
            data["image/png"] = png(self.figure(), dpi=100)
        return data, metadata


def check_selection(selection: dict, sizes: dict[str, int]) -> dict[str, int | None]:
    """Return a whole selection of plain numbers, or raise TypeError or ValueError.

    sizes: how many of an axis there are, for those where that is known.
    """
    unknown = selection.keys() - NOTHING
    if unknown:
        raise ValueError(f"selection has {sorted(unknown, key=str)}, expected {list(NOTHING)}")
    selection = {**NOTHING, **selection}
    for axis, index in selection.items():
        if index is not None:
            name, wanted = f"selection[{axis!r}]", "a whole number or None"
            selection[axis] = check_index(name, index, sizes.get(axis), wanted)
    return selection
