"""What only some need, and pip installs with an extra of this package."""

from importlib import import_module
from types import ModuleType


def needed(module: str, extra: str) -> ModuleType:
    """Import a module that comes with an extra.

    module: its name.   extra: as in pyproject.toml.
    Returns it. Raises ModuleNotFoundError where it is not installed, and says how to get it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:  # it is there, but not what it needs itself
            raise
        raise ModuleNotFoundError(
            f'{error.name} is not installed; get it with `pip install "attnviz[{extra}]"`',
            name=error.name,
        ) from error
