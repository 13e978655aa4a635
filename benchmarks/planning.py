"""How long planning takes: every split point of ResNet44, 3 devices, 100 links.

Once before anything is known of the bundle (graphs traced, what crosses encoded by every codec), once after, as for
every further device, server or link; and the matrix product alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import edgekit
from benchmarks.page import table, target
from edgekit.devices import load
from edgekit.planner import Grid, plan, price
from edgekit.planner.times import Times
from edgekit.students import resnet_cifar
from edgekit_runtime import open_bundle
from edgekit_runtime.adaptive import ActionCost
from edgekit_runtime.bundle import Bundle

TARGET_S, POINTS, RUNS = 1.0, 60, 5
DEVICES, SERVER = ("pi4", "pi5", "n100"), "x86-vnni"
GRID = Grid(
    rtt_ms=(5, 20, 50, 100),
    bandwidth_mbps=tuple(float(rate) for rate in np.geomspace(0.1, 100, 25)),
    device_load=(0,),
    server_load=(0,),
)
FOLDER = Path(__file__).parent.parent / "build" / "planning"


def run() -> str:
    with open_bundle(_converted()) as bundle:
        points = len(bundle.manifest.split_points)
        first_s = _seconds(lambda: _planned(bundle))
        again_s = statistics.median(_seconds(lambda: _planned(bundle)) for _ in range(RUNS))
    made_up = _made_up()
    alone_s = statistics.median(_seconds(lambda: _alone(made_up)) for _ in range(RUNS))
    rows = [
        (f"ResNet44, {points} split points, the first plan of a bundle", f"{first_s:.2f} s", "-", "-"),
        (f"ResNet44, {points} split points, every further one", f"{again_s:.2f} s", *_judged(again_s)),
        (f"{POINTS} split points with known costs", f"{alone_s:.3f} s", *_judged(alone_s)),
    ]
    what = f"{len(DEVICES)} devices ({', '.join(DEVICES)}), server {SERVER}, {_links()} links, whole documents."
    return f"{what}\n\n" + table(("what", "time", "target", ""), rows)


def _judged(seconds: float) -> tuple[str, str]:
    return target(f"<= {TARGET_S:g} s", seconds <= TARGET_S)


def _links() -> int:
    return len(GRID.rtt_ms) * len(GRID.bandwidth_mbps)


def _converted() -> Path:
    """ResNet44 in ONNX fp32, cut wherever it can be."""
    path = FOLDER / "resnet44.edge"
    if not path.is_dir():
        pictures = np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)
        edgekit.convert(
            resnet_cifar.resnet44(),
            out=path,
            calibration={"image": pictures},
            formats=["onnx"],
            precision="fp32",
            split_points=["all"],
        )
    return path


def _planned(bundle: Bundle) -> None:
    server = Times(bundle, load(SERVER))
    for name in DEVICES:
        plan(price(bundle, Times(bundle, load(name)), server).actions, GRID).document()


def _made_up() -> list[tuple[ActionCost, ...]]:
    """Actions of three devices, each slower than the last."""
    found = []
    for slower in (1.0, 3.0, 10.0):
        rows = [ActionCost(id="local", kind="local", head_ms=50 * slower)]
        rows.append(ActionCost(id="offload", kind="offload", offload_fraction=1.0, bytes_up=20_000, tail_ms=2))
        for number in range(POINTS):
            head_ms, bytes_up = slower * (1.0 + number / 2), 30_000 - 400 * number
            rows.append(
                ActionCost(
                    id=f"split:{number}",
                    kind="split",
                    head_ms=head_ms,
                    offload_fraction=1.0,
                    bytes_up=bytes_up,
                    tail_ms=2,
                    split_point=f"p{number}",
                    depth=number,
                )
            )
        found.append(tuple(rows))
    return found


def _alone(devices: list[tuple[ActionCost, ...]]) -> None:
    for rows in devices:
        plan(rows, GRID).document()


def _seconds(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
