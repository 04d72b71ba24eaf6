"""Operators by the files that hold them: InnerProduct is the class of that name in inner_product.py."""

from __future__ import annotations

import functools
import importlib
import logging
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from dtrain.errors import BackendError
from dtrain.kernels.backend import Backend, Unsupported

logger = logging.getLogger(__name__)


@functools.cache
def _files(folder: str) -> dict[str, str]:
    """Module names of a package by their letters alone: "innerproduct" -> "inner_product"."""
    path = importlib.import_module(folder).__path__
    return {m.name.replace("_", ""): m.name for m in pkgutil.iter_modules(path)}


@functools.cache
def candidates(name: str, folders: tuple[str, ...]) -> tuple[Callable[..., Any], ...]:
    """The operator's classes in these packages, in their order."""
    found = []
    for folder in folders:
        module = _files(folder).get(name.lower())
        if module is not None:
            found.append(getattr(importlib.import_module(f"{folder}.{module}"), name))
    return tuple(found)


def build(classes: Sequence[Callable[..., Any]], complaint: str, backend: Backend, *args: Any) -> Any:
    """An operator of the first class that supports the arguments.

    Raises BackendError where none does: `complaint` with the last one's reason in the place of {reason}.
    """
    for i, candidate in enumerate(classes):
        try:
            return candidate(backend, *args)
        except Unsupported as reason:
            if i + 1 == len(classes):
                raise BackendError(complaint.format(reason=reason)) from None
            logger.debug("%s: %s; the next implementation takes it", candidate.__module__, reason)
    raise AssertionError("an operator has at least one implementation")
