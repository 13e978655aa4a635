import logging
import os
import sys
import warnings

import pytest

from edgekit_converters.quiet import quiet, quiet_native
from edgekit_converters.tflite.lower import refusal, source_line


def test_noise_is_swallowed_and_everything_is_put_back(capfd: pytest.CaptureFixture[str]) -> None:
    handlers, before = logging.getLogger().handlers[:], dict(os.environ)
    with quiet_native():
        print("out")
        sys.stderr.write("err\n")
        os.write(2, b"native\n")
        logging.warning("log")
        warnings.warn("warning", stacklevel=1)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert dict(os.environ) == before
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_an_error_passes_through_and_logging_works_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="mine"), quiet():
        raise ValueError("mine")
    logging.getLogger("edgekit.test").warning("audible")
    assert "audible" in caplog.text


MESSAGE = """Lowering not found: aten._linalg_svd.default

While executing %x : [num_users=1] = call_function[target=torch.ops.aten._linalg_svd.default](args = (%x, True))
Original traceback:
File "/home/me/net.py", line 13, in forward
    return torch.linalg.svd(x)[1]
  File "/usr/lib/python3/site-packages/torch/linalg.py", line 7, in svd
    pass
"""


def test_a_failed_lowering_names_operator_place_and_way_out() -> None:
    error = refusal(RuntimeError(MESSAGE))
    assert "aten._linalg_svd.default" in error.message
    assert "/home/me/net.py:13" in error.message
    assert error.remedy
    assert source_line("no traceback here") == ""
