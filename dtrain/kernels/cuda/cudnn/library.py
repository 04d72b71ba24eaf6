"""cuDNN through its frontend: one handle for a device's stream, and one workspace for all graphs.

The frontend is the Python package `cudnn`. The device is asked for it when an operator wants it, so that
everything else works without.
"""

from __future__ import annotations

import importlib
import json
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, final

import numpy as np

from dtrain.errors import BackendError
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cuda.cudnn.graph import Draft, Graph
from dtrain.kernels.cuda.device import Buffer, Device
from dtrain.kernels.cuda.form import Form

logger = logging.getLogger(__name__)

WORKSPACE_LIMIT_BYTES: Final = 512 << 20
WARM_UPS, REPEATS = 2, 5  # of each candidate when candidates are timed
HOW_TO_INSTALL: Final = (
    "pip install 'dtrain[cuda12]', or 'dtrain[cuda13]' for a driver of CUDA 13; engine CAFFE does without"
)


@final
class Cudnn:
    """cuDNN on one device; `autotune` times what cuDNN proposes and takes the fastest.

    Its choices may then differ from run to run, and with them the rounding.
    """

    def __init__(self, device: Device | None, *, autotune: bool = False) -> None:
        self.device = device
        self.autotune = autotune
        self.missing = ""
        """Why cuDNN cannot be used, once `module` was asked for; empty where it can."""
        self._module: Any = None
        self._handle: Any = None
        self._planning: dict[str, Any] = {}
        self._graphs: dict[Hashable, Graph | str] = {}
        self._workspace: Buffer | None = None
        self._choices: dict[Hashable, int] = {}

    @classmethod
    def plan_only(cls, device_properties: Mapping[str, Any], sm_version: int) -> Cudnn:
        """For a card that is not there: its graphs are planned and cannot run.

        The properties are those that cuDNN tells of a card, by name.
        """
        made = cls(None)
        made._module = importlib.import_module("cudnn")
        properties = made._module.create_device_properties(json.dumps(dict(device_properties)))
        made._planning = {"device_property": properties, "sm_version": sm_version}
        return made

    @property
    def module(self) -> Any:
        """The frontend, or None; `missing` then says why."""
        if self._module is None and not self.missing:
            assert self.device is not None, "without a device there is a module from the start"
            try:
                module = self.device.library("cudnn")
                if module is None:
                    self.missing = "nvidia-cudnn-frontend is not installed"
                    return None
                self._handle = module.create_handle()
                module.set_stream(handle=self._handle, stream=self.device.stream_pointer)
            except (RuntimeError, OSError) as error:
                self.missing = str(error).strip().split("\n")[0]
                logger.warning("cuDNN cannot be used, the kernels of dtrain serve: %s", self.missing)
                return None
            self._module = module
        return self._module

    def require(self) -> None:
        """BackendError that says how to install cuDNN where it cannot be used."""
        if self.module is None:
            raise BackendError(
                f"engine CUDNN: cuDNN and its frontend must be installed, got {self.missing}; "
                f"{HOW_TO_INSTALL}"
            )

    def describe(self) -> str:
        """The libraries with their versions, or that there are none."""
        if self.module is None:
            return f"no cuDNN ({self.missing})"
        return f"cuDNN {self.module.backend_version_string()} (frontend {self.module.__version__})"

    # -- graphs

    def graph(self, key: Hashable, form: Form, strict: bool, draw: Callable[[Draft], None]) -> Graph:
        """The graph of that key, planned on first use; Unsupported where cuDNN has no engine for it.

        strict: float32 must not be rounded to TF32.
        """
        full = (key, form, strict)
        found = self._graphs.get(full)
        if found is None:
            try:
                found = self._plan(form, strict, draw)
            except Unsupported as reason:
                found = str(reason)
                logger.debug("%s: %s", key, reason)
            self._graphs[full] = found
        if isinstance(found, str):
            raise Unsupported(found)
        return found

    def _plan(self, form: Form, strict: bool, draw: Callable[[Draft], None]) -> Graph:
        """With engines that give the same sum every time, if there is one."""
        if self.module is None:
            raise Unsupported(f"cuDNN: {self.missing}")
        reason: Exception | None = None
        for repeatable in (True, False):
            settings = self._planning or {"handle": self._handle}
            draft = Draft(self.module, form, settings)
            draw(draft)
            try:
                return Graph(self, draft.planned(WORKSPACE_LIMIT_BYTES, strict=strict, repeatable=repeatable))
            except (self.module.cudnnGraphNotSupportedError, RuntimeError) as error:
                reason = error
        told = str(reason).strip().split("\n")[0]
        raise Unsupported(f"cuDNN has no engine: {told}")

    # -- running

    @property
    def handle(self) -> Any:
        return self._handle

    def workspace(self, count: int) -> Buffer:
        """Bytes that all graphs share: their contents last until the next graph runs."""
        assert self.device is not None, "what is only planned does not run"
        if self._workspace is None or self._workspace.size < count:
            if self.device.is_capturing:
                raise BackendError(
                    f"CUDA graph: cuDNN's workspace must be taken before the capture, got a need for "
                    f"{count} bytes"
                )
            self._workspace = self.device.empty(max(count, 1), np.uint8)
        return self._workspace

    def fastest(self, key: Hashable, candidates: Sequence[Callable[[], None]]) -> int:
        """Which of several ways to compute the same takes least time: the first, unless `autotune` is set.

        A candidate may run many times.
        """
        if len(candidates) == 1 or not self.autotune:
            return 0
        found = self._choices.get(key)
        if found is None:
            assert self.device is not None, "what is only planned does not run"
            if self.device.is_capturing:
                return 0
            times = [self.seconds(candidate) for candidate in candidates]
            found = self._choices[key] = times.index(min(times))
        return found

    def seconds(self, work: Callable[[], None]) -> float:
        """Of one run, when the device has nothing else to do."""
        assert self.device is not None, "what is only planned does not run"
        for _ in range(WARM_UPS):
            work()
        self.device.synchronize()
        begin = time.perf_counter()
        for _ in range(REPEATS):
            work()
        self.device.synchronize()
        return (time.perf_counter() - begin) / REPEATS
