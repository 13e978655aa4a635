from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from torch import nn

from edgekit.students import data, registry
from edgekit_runtime.errors import UsageError


@pytest.fixture(scope="session")
def tiny() -> Callable[[str], nn.Module]:
    """Builds each tiny student once for the whole session; no test changes it."""
    return functools.cache(lambda name: registry.get(name).build("tiny"))


@pytest.fixture
def public_data() -> None:
    """Skips the test where the data sets are absent."""
    try:
        data.folder()
    except UsageError as error:
        pytest.skip(str(error))
