"""Random actions, links, loads and policies."""

from __future__ import annotations

from hypothesis import strategies as st

from edgekit_runtime.adaptive import ActionCost, Link, Load, Policy

_ms = st.floats(0, 500)


@st.composite
def actions(draw: st.DrawFn) -> tuple[ActionCost, ...]:
    rows = [ActionCost(id="local", kind="local", head_ms=draw(st.floats(0.1, 1000)), head_sd_ms=draw(st.floats(0, 20)))]
    for number in range(draw(st.integers(0, 8))):
        rows.append(
            ActionCost(
                id=f"a{number}",
                kind="split",
                head_ms=draw(_ms),
                encode_ms=draw(st.floats(0, 5)),
                offload_fraction=draw(st.sampled_from((0.3, 0.7, 1.0))),
                bytes_up=draw(st.integers(0, 500_000)),
                bytes_down=draw(st.integers(0, 5_000)),
                tail_ms=draw(st.floats(0, 100)),
                tail_sd_ms=draw(st.floats(0, 10)),
                server_macs=draw(st.integers(0, 10**9)),
                accuracy_drop=draw(st.one_of(st.none(), st.floats(0, 0.1))),
                split_point=f"p{number}",
                depth=number,
            )
        )
    return tuple(rows)


links = st.builds(
    Link,
    rtt_ms=st.floats(0.1, 500),
    uplink_mbps=st.floats(0.01, 500),
    downlink_mbps=st.floats(0.01, 500),
    rtt_spread=st.floats(0, 2),
    uplink_spread=st.floats(0, 2),
    downlink_spread=st.floats(0, 2),
    backlog_ms=st.floats(0, 100),
)
loads = st.builds(
    Load,
    device_slowdown=st.floats(0.5, 10),
    device_spread=st.floats(0, 1),
    device_wait_ms=st.floats(0, 100),
    server_slowdown=st.floats(0.5, 10),
    server_spread=st.floats(0, 1),
    queue_ms=st.floats(0, 100),
    queue_sd_ms=st.floats(0, 100),
    battery_fraction=st.one_of(st.none(), st.floats(0, 1)),
)
policies = st.builds(
    Policy,
    objective=st.sampled_from(("latency", "energy", "server_cost", "accuracy")),
    deadline_ms=st.one_of(st.none(), st.floats(1, 1000)),
    miss_probability=st.floats(0, 1),
    max_risk=st.one_of(st.none(), st.floats(0, 0.1)),
    max_bytes=st.one_of(st.none(), st.integers(0, 500_000)),
    privacy=st.one_of(st.just(""), st.just("local"), st.integers(0, 9)),
    min_battery=st.one_of(st.none(), st.floats(0, 1)),
)
