"""The simulator beside a real link: two network namespaces with a token bucket between them."""

from __future__ import annotations

import pytest

from benchmarks import link

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(bool(link.missing()), reason=link.missing() or "it can run here"),
]


def test_choices_change_with_a_real_link_and_none_is_lost() -> None:
    live = link.measure(((5.0, 50.0), (5.0, 0.2)))
    assert live["lost"] == 0
    wide, narrow = live["steps"]
    # 10 KB at 0.2 Mbit/s take 0.4 s: a request that is sent there is overtaken by the local run.
    assert narrow["sent"] < 0.5 and narrow["simulated_sent"] < 0.5
    assert wide["requests"] > 5 and narrow["requests"] > 5
    # A wide margin: other tests share the machine. The benchmark holds 15 %.
    assert 0.5 < live["ratio"] < 2.0
