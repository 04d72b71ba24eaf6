"""Layer types: one file each, and the folder is the registry.

The file of a type is its name in lower case, words joined by underscores as one likes:
"SoftmaxWithLoss" is in softmax_with_loss.py.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from dtrain.errors import ConfigError, unknown_name
from dtrain.layers.layer import Layer


@functools.cache
def _files() -> dict[str, str]:
    """Module names by the file's letters alone: "softmaxwithloss" -> "softmax_with_loss"."""
    return {m.name.replace("_", ""): m.name for m in pkgutil.iter_modules(__path__)}


@functools.cache
def _types_in(module_name: str) -> dict[str, type[Layer]]:
    module = importlib.import_module(f"{__name__}.{module_name}")
    found = {}
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Layer) and value.__module__ == module.__name__:
            type_name = vars(value).get("type_name")
            if type_name is not None:
                found[type_name] = value
    return found


def known_types() -> list[str]:
    """The names of all layer types."""
    return sorted(name for module in _files().values() for name in _types_in(module))


def layer_class(type_name: str) -> type[Layer]:
    """The class of a layer type; ConfigError names the nearest and lists all where there is none."""
    module = _files().get(type_name.replace("_", "").lower())
    if module is not None:
        found = _types_in(module).get(type_name)
        if found is not None:
            return found
    raise ConfigError(unknown_name("layer type", type_name, known_types()))
