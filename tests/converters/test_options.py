from pathlib import Path

import pytest

from edgekit_converters.convert import convert
from edgekit_converters.options import Options
from edgekit_runtime.errors import UsageError


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"formats": ("caffe",)}, ("--format", "onnx,tflite")),
        ({"formats": ()}, ("--format", "(empty)")),
        ({"precision": "int4"}, ("int4", "auto")),
        ({"version": 0}, ("--version 0", "from 1")),
        ({"seed": -5}, ("--seed -5", "from 0")),
        ({"seed": 2**32}, ("--seed 4294967296", "4294967295")),
        ({"exits": ("a", "b", "a")}, ("--exits a,b,a", "twice")),
        ({"name": "a/b"}, ("'a/b'", "letters")),
        ({"name": ".."}, ("'..'", "letters")),
        ({"name": "a b"}, ("'a b'", "letters")),
        ({"opset": 5}, ("--opset 5", "15 to 23")),
        ({"opset": 999}, ("--opset 999", "15 to 23")),
    ],
)
def test_what_cannot_be_meant_is_wrong_usage(given, words):
    with pytest.raises(UsageError) as caught:
        Options(source="s.py:build", out=Path("s.edge"), **given).check()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [{"seed": 0}, {"seed": 2**32 - 1}, {"name": "resnet-20_v1.2"}, {"exits": ("a", "b")}, {"opset": 15}, {"opset": 23}],
)
def test_what_can_be_meant_passes(given):
    Options(source="s.py:build", out=Path("s.edge"), **given).check()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metric": "bleu"}, ("'bleu'", "top1")),
        ({"max_drop": "little"}, ("'little'", "1%")),
        ({"max_drop": "-1%"}, ("-1%", "0 or more")),
        ({"max_drop": float("nan")}, ("nan", "0 or more")),
    ],
)
def test_the_gate_is_read_before_any_work(given, words, tmp_path) -> None:
    # The source does not exist, which is found out later.
    with pytest.raises(UsageError) as caught:
        convert("no_such_file.py:build", out=tmp_path / "x.edge", **given)
    assert all(word in str(caught.value) for word in words)
