"""Python: a layer whose code is a class in a module of the user's. Source: Caffe's PythonLayer.

Every rank runs in a process of its own, so `share_in_parallel` has nothing to share.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import final

from dtrain.errors import DtrainError, unknown_name
from dtrain.kernels.array import Shape
from dtrain.layers import python_face as face
from dtrain.layers.layer import Blob, Blobs, Count, Layer
from dtrain.proto import dtrain_pb2 as pb

ANY = Count(0, None)


@final
class Python(Layer):
    """Any bottoms -> any tops, as the class `layer` in `module` has it."""

    type_name = "Python"
    num_bottoms = ANY
    num_tops = ANY
    reshapes_in_forward = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.is_set_up = False
        param = self.spec.python_param
        self.user = self._make()
        self.user.blobs = face.BlobVec(self.blobs, self._add)
        self.user.param_str = self.user.param_str_ = param.param_str
        self.user.phase = self.scope.phase
        self.user.rank, self.user.size = self.scope.rank, self.scope.size
        with self._telling("setup"):
            self.user.setup(faces(bottom), faces(top))
        self.is_set_up = True

    def _make(self) -> face.Layer:
        cls = self._find_class()
        with self._telling("__init__"):
            missing = sorted(cls.__abstractmethods__)
            if missing:
                raise self.bad_param(
                    ("python_param", "layer"),
                    "a class with setup, reshape and forward",
                    f"{cls.__name__} without {', '.join(missing)}",
                )
            return cls(self.spec)

    def _find_class(self) -> type[face.Layer]:
        param = self.spec.python_param
        for name in ("module", "layer"):
            if not getattr(param, name):
                raise self.bad_param(("python_param", name), "given", "none")
        face.provide_caffe()
        try:
            module = importlib.import_module(param.module)
        except ModuleNotFoundError as error:
            if error.name is not None and (param.module + ".").startswith(error.name + "."):
                raise self.bad_param(
                    ("python_param", "module"),
                    "a module that Python finds",
                    f'"{param.module}"; add its folder to PYTHONPATH',
                ) from error
            raise self._failure("import", error) from error
        except Exception as error:
            raise self._failure("import", error) from error
        found = vars(module).get(param.layer)
        if found is None:
            known = [name for name, value in vars(module).items() if isinstance(value, type)]
            told = unknown_name(f"class of module {param.module}", param.layer, known)
            raise self.error(told, "python_param", "layer")
        if not (isinstance(found, type) and issubclass(found, face.Layer)):
            raise self.bad_param(
                ("python_param", "layer"),
                "a class derived from the caffe.Layer of dtrain",
                f"{found!r}; another caffe is installed, or it derives from something else",
            )
        return found

    def _add(self, shape: Shape) -> Blob:
        if self.is_set_up:
            raise self.error("add_blob must be called in setup, got a call later")
        return self.add_blob(shape, pb.FillerParameter())

    def _failure(self, method: str, error: Exception) -> RuntimeError:
        """Not a DtrainError: the cause's traceback is what its author needs."""
        param = self.spec.python_param
        what = f"{param.module}.{param.layer}.{method}" if method != "import" else f"import {param.module}"
        return RuntimeError(str(self.error(f"{what} raised {type(error).__name__}: {error}")))

    @contextmanager
    def _telling(self, method: str) -> Iterator[None]:
        """An exception of the user's code leaves with the layer's name, and as its cause."""
        try:
            yield
        except DtrainError:
            raise
        except Exception as error:
            raise self._failure(method, error) from error

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        with self._telling("reshape"):
            self.user.reshape(faces(bottom), faces(top))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        before = [blob.shape for blob in top]
        self.reshape(bottom, top)
        with self._telling("forward"):
            self.user.forward(faces(bottom), faces(top))
        for blob, weight, shape in zip(top, self.loss_weights, before, strict=True):
            if weight and blob.shape != shape:
                blob.diff.plain_overwrite().fill(weight)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted and not any(blob.diff is other.diff for other in top):
                blob.diff.clear()  # the class may leave zeros unwritten
        with self._telling("backward"):
            self.user.backward(faces(top), list(propagate_down), faces(bottom))


def faces(blobs: Blobs) -> list[face.Blob]:
    """The blobs as the user's code sees them."""
    return [face.Blob(blob) for blob in blobs]
