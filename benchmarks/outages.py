"""Outages for every action that may lose accuracy: int8 wires, pictures, exits, exits and cascades that hand over.

A student with exits and a server: 20,000 requests over real sockets, while the server is killed, frozen, drained and
replaced by one with other weights. Each action has its turn of a few requests, beside the local run only, which is
slowed down so that the action is worth choosing. What each action must answer to each picture is worked out beforehand
without any server; an answer that is neither that nor the full student's is wrong.
"""

from __future__ import annotations

import collections
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch

import edgekit
import edgekit_runtime as er
from benchmarks.page import table, target
from benchmarks.serving import REQUESTS, Served
from edgekit_converters.exits.calibrate import Request, calibrate_exits
from edgekit_runtime import codecs, exits
from edgekit_runtime.adaptive import Link
from edgekit_runtime.adaptive.estimators import LinkEstimator
from edgekit_runtime.cascade import open_first
from edgekit_runtime.chain import Chain
from edgekit_runtime.engines.base import Arrays
from edgekit_runtime.manifest import SplitPoint
from edgekit_runtime.remote import ways
from edgekit_runtime.remote.leaving import LeavingChain
from edgekit_runtime.remote.offer import Offer
from edgekit_runtime.remote.session import AdaptiveSession

GRAPH, NAME, FIRST = "onnx.fp32", "image", "first.image"
RISK, PICTURES, TURN, SLOW_S = 0.02, 64, 37, 0.006
CLOSE = 2e-4  # of answers around 1: a batch of another size may round another way
Expected = Mapping[str, np.ndarray]  # [PICTURES, classes] by action


class Student(torch.nn.Module):
    """Three convolutions with an exit after each of the first two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.deep = torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.last = torch.nn.Conv2d(16, 16, 3, padding=1)
        self.heads = torch.nn.ModuleList([torch.nn.Linear(8, 4), torch.nn.Linear(16, 4), torch.nn.Linear(16, 4)])

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        a = torch.relu(self.stem(image))
        b = torch.relu(self.deep(a))
        c = torch.relu(self.last(b))
        said = [head(x.mean((2, 3))) for head, x in zip(self.heads, (a, b, c), strict=True)]
        return {"early": said[0], "middle": said[1], "full": said[2]}


class Small(torch.nn.Module):
    """One convolution over the picture at half its size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.head = torch.nn.Linear(16, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.stem(image)).mean((2, 3)))


def pictures(n: int, seed: int) -> np.ndarray:
    """Smooth pictures with a little noise: float32 [n, 3, 32, 32]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32] / 32.0
    waves = rng.normal(size=(n, 3, 4, 1, 1)) * np.stack([x, y, np.sin(6 * x), np.cos(5 * y)])
    return (waves.sum(2) + rng.normal(0, 0.02, (n, 3, 32, 32))).astype(np.float32)


def half(image: np.ndarray) -> np.ndarray:
    """Every second pixel: what the small student sees."""
    return np.ascontiguousarray(image[:, :, ::2, ::2])


def run() -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, big, other = _students(folder)
        return _soak(small, big, other)


def _students(folder: Path) -> tuple[Path, Path, Path]:
    """The small student, the full one with certified exits and a cascade, and another full one of the same name."""
    torch.manual_seed(0)
    student, small = _drawn(), Small()
    _imitate(student, small)
    for place in ("small", "plain", "exits", "big", "other"):
        (folder / place).mkdir()
    common = {"formats": ["onnx"], "precision": "fp32", "dynamic": (f"{NAME}:0=B:1-64",)}
    cheap = folder / "small" / "small.edge"
    edgekit.convert(
        small.eval(), out=cheap, calibration={NAME: half(pictures(24, 0))}, split_points=("none",), **common
    )  # type: ignore[arg-type]
    made = []
    for place, module in (("plain", student), ("other", _drawn())):
        made.append(folder / place / "early.edge")
        outputs = ("early", "middle", "full")
        edgekit.convert(module.eval(), out=made[-1], calibration={NAME: pictures(24, 0)}, exits=outputs, **common)  # type: ignore[arg-type]
    x = pictures(1000, 1)
    np.savez(folder / "data.npz", **{NAME: x, FIRST: half(x)})  # type: ignore[arg-type]
    certified, big = folder / "exits" / "early.edge", folder / "big" / "early.edge"
    calibrate_exits(made[0], certified, Request(folder / "data.npz", (RISK,)), lambda line: None)
    calibrate_exits(certified, big, Request(folder / "data.npz", (RISK,), first=cheap), lambda line: None)
    return cheap, big, made[1]


def _drawn() -> Student:
    module = Student()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def _imitate(student: Student, small: Small) -> None:
    """Teaches the exits and the small student what the full answer is."""
    parameters = [*student.heads[0].parameters(), *student.heads[1].parameters(), *small.parameters()]
    optimizer = torch.optim.Adam(parameters, 3e-2)
    x = torch.from_numpy(pictures(1024, 2))
    for _ in range(200):
        said = student(x)
        wanted = said["full"].argmax(-1)
        answers = (said["early"], said["middle"], small(x[:, :, ::2, ::2]))
        loss = torch.stack([torch.nn.functional.cross_entropy(answer, wanted) for answer in answers]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _expected(session: AdaptiveSession, x: np.ndarray) -> Expected:
    """What each action must answer to each picture, by what stands in the bundle alone: no server, no session."""
    bundle = session.local.bundle
    assert bundle is not None
    points = {point.place or point.id: point for point in bundle.manifest.split_points if point.of == GRAPH}
    with LeavingChain(bundle, GRAPH) as chain, er.open(bundle.root, graph=GRAPH, threads=1) as local:
        said = [np.concatenate(rows) for rows in zip(*(chain.scores({NAME: row}) for row in _rows(x)), strict=True)]
        found: dict[str, np.ndarray] = {"local": said[-1]}
        for name, offer in session._offers.items():
            if offer.point is not None and offer.point.first is not None:
                (first,) = session._first.students
                small = np.concatenate([first.session.run({NAME: row})["output"] for row in _rows(half(x))])
                sure = exits.score(offer.point.score_rule, small) >= offer.point.thresholds[0]
                found[name] = np.where(sure[:, None], small, said[-1])
            elif offer.point is not None:
                found[name] = _left(offer, said)
            elif offer.cost.codec == codecs.INT8_ROW:
                found[name] = _over_wire(bundle, points[offer.cost.split_point], offer.cost.codec, x)
            elif "@" in offer.cost.codec:
                sent = [_through(offer.cost.codec, row) for row in _rows(x)]
                found[name] = np.concatenate([local.run({NAME: row})["full"] for row in sent])
    return found


def _left(offer: Offer, said: list[np.ndarray]) -> np.ndarray:
    """Answers of a chain with exits; beyond the last exit that is passed here, the full one."""
    assert offer.point is not None
    last = offer.way.last if isinstance(offer.way, ways.EarlyThenSend) else len(said) - 2
    answer = said[-1].copy()
    for number in range(last, -1, -1):
        sure = exits.score(offer.point.score_rule, said[number]) >= offer.point.thresholds[number]
        answer[sure] = said[number][sure]
    return answer


def _over_wire(bundle: er.Bundle, point: SplitPoint, codec: str, x: np.ndarray) -> np.ndarray:
    with Chain(bundle, GRAPH, stop=point.id) as head, Chain(bundle, GRAPH, start=point.id) as tail:
        return np.concatenate(
            [
                tail.run({key: _through(codec, value) for key, value in head.run({NAME: row}).items()})["full"]
                for row in _rows(x)
            ]
        )


def _through(codec: str, array: np.ndarray) -> np.ndarray:
    return codecs.decode(codec, codecs.encode(codec, array), array.dtype.name, array.shape)


def _rows(x: np.ndarray) -> list[np.ndarray]:
    return [x[number : number + 1] for number in range(len(x))]


class _Server:
    """The server and what happens to it, in rounds of 2,000 requests."""

    def __init__(self, bundle: Path, other: Path) -> None:
        self._bundle, self._other = bundle, other
        self._served = Served(bundle)
        self.url = self._served.url

    def step(self, number: int) -> None:
        """Does what is due before this request."""
        step = number % 2000
        if step == 500:
            self._served.kill()
        elif step in (700, 1700):
            if step == 1700:
                self._served.kill(signal.SIGTERM)
            self._served = Served(self._bundle, self._served.port)
        elif step == 1000:
            os.kill(self._served.process.pid, signal.SIGSTOP)
        elif step == 1200:
            os.kill(self._served.process.pid, signal.SIGCONT)
        elif step == 1500:
            self._served.kill(signal.SIGTERM)
            self._served = Served(self._other, self._served.port)

    def close(self, number: int) -> None:
        if not 500 <= number % 2000 < 700:
            os.kill(self._served.process.pid, signal.SIGCONT)
            self._served.kill(signal.SIGTERM)


def _soak(small: Path, big: Path, other: Path) -> str:
    x = pictures(PICTURES, 5)
    server = _Server(big, other)
    policy = er.Policy(max_risk=1.0, deadline_ms=100)
    local = er.open(big, graph=GRAPH, engine="onnxruntime", threads=1)
    first = open_first(small, local)
    whole = local.run

    def slow(inputs: Mapping[str, object]) -> Arrays:
        time.sleep(SLOW_S)
        return whole(inputs)

    local.run = slow  # type: ignore[method-assign]
    count: dict[str, collections.Counter[str]] = {}
    lost, wrong, worst = 0, 0, 0.0
    number = 0
    with AdaptiveSession(local, server.url, policy, first=first) as session:
        # The link is loopback: nothing of the soak is spent on finding that out.
        session.controller.link = LinkEstimator(Link(rtt_ms=1.0, uplink_mbps=1000.0, downlink_mbps=1000.0))
        expected = _expected(session, x)
        turns = [name for name in expected if name != "local"]
        rng = np.random.default_rng(1)
        for number in range(REQUESTS):
            server.step(number)
            action = turns[number // TURN % len(turns)]
            if number % TURN == 0:
                rest = tuple(name for name in session._offers if name not in ("local", action))
                session.controller.policy = msgspec.structs.replace(policy, without=rest)
            rows = rng.choice(PICTURES, size=rng.integers(1, 3), replace=False)
            seen = count.setdefault(action, collections.Counter())
            try:
                result = session.infer({NAME: x[rows], FIRST: half(x[rows])})
            except Exception as error:  # noqa: BLE001 - whatever it is, the request is lost: that is what is counted
                lost += 1
                seen[f"lost: {type(error).__name__}"] += 1
                continue
            fits = [_close(result.outputs["full"], expected[name][rows]) for name in (action, "local")]
            wrong += not any(fits)
            worst = max(worst, result.timing.total_ms)
            there = "there" if result.timing.server_ms else "here"
            seen["fallback" if result.timing.fallback else there if result.decision.action == action else "local"] += 1
        closed = [name for name, why in session.left_out.items() if why.startswith("closed")]
    server.close(number)
    return _page(count, lost, wrong, worst, closed)


def _close(got: np.ndarray, wanted: np.ndarray) -> bool:
    """The same rows, up to rounding: one row may be answered early and the other not, as the action says."""
    return got.shape == wanted.shape and bool(np.abs(got - wanted).max() <= CLOSE * max(np.abs(wanted).max(), 1.0))


def _page(count: Mapping[str, collections.Counter[str]], lost: int, wrong: int, worst: float, closed: list[str]) -> str:
    lines = [
        ("requests", sum(row.total() for row in count.values()), "", ""),
        ("lost", lost, *target("0", not lost)),
        ("wrong answers that got through", wrong, *target("0", not wrong)),
        ("longest request", f"{worst:.0f} ms", "", ""),
        ("certificates closed by their alarm", ", ".join(closed) or "none", "", ""),
    ]
    kinds = ("there", "here", "local", "fallback")
    rows = [(name, *(str(seen[kind]) for kind in kinds)) for name, seen in count.items()]
    parts = [
        table(("what", "seen", "target", ""), lines),
        "",
        "How the requests of each action's turns were answered:",
        "",
    ]
    titles = ("action", "by it, there", "by it, here", "local was expected to be better", "local after all")
    return "\n".join([*parts, table(titles, rows)])
