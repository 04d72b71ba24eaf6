"""Where the tests find the golden files and data sets that lie beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


def shared_path(*parts: str) -> Path:
    """A path under the shared folder; without that folder the test is skipped, and in CI it fails."""
    path = SHARED.joinpath(*parts)
    if path.exists():
        return path
    reason = (
        f"{path} is absent; golden files and data sets lie in a folder named shared beside the repository"
    )
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
