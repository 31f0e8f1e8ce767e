"""Copies of masks, so that a record stays right when the model's own mask is changed later."""

import weakref

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from attnviz.seeing.record import version_of
from attnviz.seeing.scores import unrepeated


class Copies:
    """One copy of each mask for all records that need it, for as long as one of these is kept.

    A mask is known by where it lies in memory, and by how often it was changed: layers that share
    one share its copy, also if each takes a view of its own.
    """

    def __init__(self) -> None:
        self._known: dict[tuple, tuple[StorageWeakRef, weakref.ref]] = {}

    def of(self, mask: Tensor) -> Tensor:
        mask = unrepeated(mask.detach())
        storage = mask.untyped_storage()
        version = version_of(mask)
        place = (storage._cdata, mask.storage_offset(), mask.shape, mask.stride(), mask.dtype)
        name = (*place, version)
        known = self._known.get(name)
        copy = None if known is None or known[0].expired() else known[1]()
        if copy is not None and (version is not None or torch.equal(copy, mask)):
            return copy
        copy = mask.clone()
        forget = weakref.ref(copy, lambda ref: self._forget(name, ref))
        self._known[name] = StorageWeakRef(storage), forget
        return copy

    def _forget(self, name: tuple, ref: weakref.ref) -> None:
        if name in self._known and self._known[name][1] is ref:
            del self._known[name]
