"""Widgets that refuse a wrong value: an error in words, and what stood before stands still."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import anywidget
import traitlets

_OF_ALL = {"layout", "tabbable", "tooltip", "_dom_classes", "_view_count"}  # of any widget's page


class TraitValueError(traitlets.TraitError, ValueError):
    """A value that a widget cannot take. For a TraitError, traitlets puts back what stood before,
    also where several values are set at once; for a ValueError alone it would not."""


class TraitTypeError(traitlets.TraitError, TypeError):
    """A value of a kind that a widget cannot take."""


class TraitRuntimeError(TraitValueError, RuntimeError):
    """A value that fails where it is tried, as a text in its tokenizer."""


def validate(*names: str) -> Callable:
    """As `traitlets.validate`, for a check that may raise anything: its error becomes a refusal."""

    def decorate(check: Callable) -> traitlets.ValidateHandler:
        @wraps(check)
        def refuse(widget: "RefusingWidget", proposal: traitlets.Bunch) -> Any:
            try:
                return check(widget, proposal)
            except TypeError as error:
                raise TraitTypeError(str(error)) from None
            except ValueError as error:
                raise TraitValueError(str(error)) from None
            except Exception as error:
                raise TraitRuntimeError(str(error) or type(error).__name__) from error

        return traitlets.validate(*names)(refuse)

    return decorate


class RefusingWidget(anywidget.AnyWidget):
    """A widget in which no refused value stays, whether Python assigned it or the page sent it.

    The page may change the traits that are tagged with page=True, and none of the others.
    Every refusal is a ValueError or a TypeError, and a TraitError as well.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        with self._refusals(name):
            super().__setattr__(name, value)

    def set_trait(self, name: str, value: Any) -> None:
        with self._refusals(name):
            super().set_trait(name, value)

    @contextmanager
    def _refusals(self, name: str) -> Iterator[None]:
        """Say in the same way that a value is refused where traitlets itself finds it wrong."""
        try:
            yield
        except (ValueError, TypeError):
            raise
        except traitlets.TraitError as error:
            choice = isinstance(self.traits().get(name), traitlets.Enum)
            raise (TraitValueError if choice else TraitTypeError)(str(error)) from None

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take what the page sends: all of it, or nothing if any of it is refused.

        The page shows its own values already: after a refusal it is told what stands.
        """
        names = [name for name in sync_data if name in self.keys]
        try:
            for name in names:
                self._check(name, sync_data[name])
            super().set_state(sync_data)
        except Exception:
            ours = self.traits(page=True)
            # the echo that the page waits for, before it listens to anybody else again
            super().set_state(self.get_state([name for name in names if name in ours]))
            self.send_state(names)
            raise

    def _check(self, name: str, value: Any) -> None:
        """Raise for a value of the page's, before it is stored even for a moment.

        While traitlets sets several it would not look at one that equals the last, as True does 1.
        """
        if self.trait_metadata(name, "page"):
            with self._refusals(name):
                self.traits()[name]._validate(self, value)
        elif name not in _OF_ALL:
            raise TraitValueError(f"the page cannot change {name}: only Python can")
