"""Recorded links and loads are read as their formats say."""

from __future__ import annotations

import itertools
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.simulate.traces import Series, read_link, read_load, read_traces
from edgekit_runtime.errors import Refused, UsageError

DATA = Path(__file__).parents[4] / "shared" / "data" / "traces"


# Drawing examples takes as long as the machine lets it: on a busy one that is no fault of the test.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.one_of(st.just(0.0), st.floats(0.5, 100))), min_size=1, max_size=8),
    st.floats(0, 50),
    st.floats(0.001, 500),
)
def test_what_is_sent_until_the_end_is_what_was_to_be_sent(steps, start_s, mbit) -> None:
    times = [0.0, *np.cumsum([length for length, _ in steps]).tolist()]
    series = Series(times, [rate for _, rate in steps])
    end_s = series.finish(start_s, mbit)
    if all(rate == 0 for _, rate in steps):
        assert end_s == math.inf
        return
    # Integrated independently, in small steps from start to end.
    grid = np.unique(
        np.concatenate(
            [[start_s, end_s]]
            + [np.array(times) + cycle * series.length_s for cycle in range(int(end_s // series.length_s) + 2)]
        )
    )
    inside = grid[(grid >= start_s) & (grid <= end_s)]
    sent = sum((b - a) * series.at((a + b) / 2) for a, b in itertools.pairwise(inside))
    assert sent == pytest.approx(mbit, rel=1e-6, abs=1e-6)


@given(st.floats(0, 30), st.floats(0, 40))
def test_a_shifted_series_is_the_same_later(start_s, at_s) -> None:
    series = Series((0, 3, 7, 10), (1, 5, 0))
    inside = (start_s + at_s) % 10
    if min(abs(inside - edge) for edge in (0, 3, 7, 10)) > 1e-6:
        assert series.shifted(start_s).at(at_s) == series.at(start_s + at_s)


def test_the_formats_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '[{"duration_ms": 1000, "bandwidth_kbps": 2000, "latency_ms": 30},'
        ' {"duration_ms": 500, "bandwidth_kbps": 0, "latency_ms": 30}]'
    )
    (tmp_path / "b.csv").write_text(
        "time_s, uplink_mbps, downlink_mbps, rtt_ms\n5, 3, 9, 70\n6, 4, 8, 60\n8, 0, 0, 0\n"
    )
    (tmp_path / "c").write_text("0 10\n1 20\n1 25\n2 30\n")
    (tmp_path / "d.up").write_text("".join(f"{ms}\n" for ms in range(0, 1000, 10)))
    (tmp_path / "d.down").write_text("".join(f"{ms}\n" for ms in range(1000)))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.json", "a.json")
        archive.write(tmp_path / "c", "c")
    json, csv, columns, mahimahi = (read_traces(tmp_path / name)[0] for name in ("a.json", "b.csv", "c", "d.up"))
    assert (json.up.mbps, json.length_s, json.rtt_ms.at(0.2)) == ([2.0, 0.0], 1.5, 30)
    assert (csv.up.mbps, csv.down.mbps, csv.up.times_s) == ([3.0, 4.0], [9.0, 8.0], [0.0, 1.0, 3.0])
    assert (columns.up.mbps, columns.length_s) == ([10.0, 25.0, 30.0], 3.0)
    # A packet of 1500 bytes every 10 ms is 1.2 Mbit/s, every ms 12.
    assert mahimahi.up.at(0.5) == pytest.approx(1.2) and mahimahi.down.at(0.5) == pytest.approx(12)
    assert [trace.name for trace in read_traces(tmp_path / "all.zip")] == ["a.json", "c"]
    assert read_traces(f"{tmp_path}/all.zip:c")[0].up.mbps == columns.up.mbps
    assert read_traces(tmp_path / "a.json", uplink_fraction=0.25)[0].up.mbps == [0.5, 0.0]


def test_a_link_may_be_two_numbers() -> None:
    link = read_link("rtt=30,mbps=4")[0]
    assert (link.rtt_ms.at(1), link.up.at(100)) == (30, 4)
    for text in ("rtt=30", "rtt=x,mbps=3", "mbps=3,loss=1"):
        with pytest.raises(UsageError):
            read_link(text)
    with pytest.raises(UsageError, match="--trace rtt=30 has no mbps"):
        read_link("rtt=30", option="--trace")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{}"),
        ("a.json", '[{"duration_ms": 0, "bandwidth_kbps": 1, "latency_ms": 1}]'),
        ("a.json", "[]"),
        ("a.csv", "x,y\n1,2\n"),
        ("a.csv", "time_s,uplink_mbps\n0,-1\n1,0\n"),
        ("a", "nothing"),
        ("a.up", "x"),
        ("a.zip", "x"),
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(Refused):
        read_traces(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has 0 rows"),
        ("time_s,uplink_mbps\n", "it has 0 rows"),
        ("time_s,uplink_mbps\n0,5\n", "it has 1 rows"),
        ("second,uplink_mbps\n0,5\n1,5\n", "no column time_s, it has 'second', 'uplink_mbps'"),
        ("time_s,rate\n0,5\n1,5\n", "no column uplink_mbps, it has 'time_s', 'rate'"),
    ],
)
def test_a_table_that_lacks_rows_or_columns_says_which(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(Refused, match=told):
        read_traces(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has 0 rows"),
        ("time_s,device_utilisation\n", "it has 0 rows"),
        ("device_utilisation\n0.5\n0.5\n", "no column time_s"),
        ("time_s\n0\n1\n", "neither device_utilisation nor server_utilisation"),
    ],
)
def test_a_load_that_lacks_rows_or_columns_says_which(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(Refused, match=told):
        read_load(tmp_path / "a.csv")


def test_loads_are_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "load.csv").write_text("time_s,device_utilisation,server_utilisation\n0,0.1,0.9\n10,0.5,0\n20,0,0\n")
    load = read_load(tmp_path / "load.csv")
    assert (load.device.at(3), load.server.at(3), load.device.at(15)) == (0.1, 0.9, 0.5)
    assert read_load("device=0.5").device.at(0) == 0.5
    (tmp_path / "bad.csv").write_text("time_s,device_utilisation\n0,1.5\n1,0\n")
    (tmp_path / "named.csv").write_text("time_s,device,server\n0,0.9,0\n10,0,0\n")
    with pytest.raises(Refused, match="no use for 'device', 'server'"):  # not taken for a load of nothing
        read_load(tmp_path / "named.csv")
    with pytest.raises(UsageError, match=r"1\.5"):
        read_load(tmp_path / "bad.csv")
    with pytest.raises(UsageError, match="no load"):
        read_load(tmp_path / "none.csv")


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/traces is not here")
def test_every_recorded_trace_is_read() -> None:
    count = sum(len(read_traces(path)) for path in sorted(DATA.glob("*.zip")))
    assert count == 438
    assert all(trace.length_s > 0 for path in (DATA / "mahimahi").iterdir() for trace in read_traces(path))
