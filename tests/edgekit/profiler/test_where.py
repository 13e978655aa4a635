from __future__ import annotations

from pathlib import Path

import pytest

import edgekit
from edgekit.profiler.where import DEFAULT_PORT, Where, parse
from edgekit_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("local", Where("local", "local")),
        ("pi4", Where("pi4", "named")),
        ("tcp://board:9000", Where("tcp://board:9000", "tcp", "board", 9000)),
        ("tcp://10.0.0.7", Where("tcp://10.0.0.7", "tcp", "10.0.0.7", DEFAULT_PORT)),
        ("tcp://[::1]:9000", Where("tcp://[::1]:9000", "tcp", "::1", 9000)),
        ("ssh://pi@board", Where("ssh://pi@board", "ssh", "board", 0, "pi")),
        ("ssh://board:2222", Where("ssh://board:2222", "ssh", "board", 2222)),
    ],
)
def test_a_device_is_read_as_it_is_written(text: str, where: Where):
    assert parse(text) == where


@pytest.mark.parametrize(
    "text",
    [
        "http://board",
        "tcp://",
        "tcp://pi@board:1",
        "tcp://board:0",
        "tcp://board:70000",
        "ssh://-oProxyCommand=x",
        "tcp://a b",
    ],
)
def test_an_impossible_device_says_what_is_possible(text: str):
    with pytest.raises(UsageError, match=r"tcp://|65535"):
        parse(text)


def test_an_unknown_device_lists_the_known_ones(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no device 'abacus'\s[\s\S]*local, .*pi4"):
        edgekit.profile(tmp_path / "any.edge", "abacus")
