from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside the tests

from edgekit_runtime.bundle import Bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    from report_material import judged_bundle

    return judged_bundle(tmp_path)
