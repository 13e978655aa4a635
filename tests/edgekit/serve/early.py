"""A student with two early exits and pictures as input, cut and with an operating point: for tests over a socket."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

import edgekit_runtime as er
from edgekit_runtime import manifest
from edgekit_runtime.chain import Chain, chain_of
from edgekit_runtime.exits import score
from edgekit_runtime.manifest import OperatingPoint

GRAPH = "onnx.fp32"
NAME = "image"


def pictures(n: int, seed: int = 0) -> np.ndarray:
    """Smooth pictures with a little noise: float32 [n, 3, 32, 32]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:32, 0:32] / 32.0
    waves = rng.normal(size=(n, 3, 4, 1, 1)) * np.stack([x, y, np.sin(6 * x), np.cos(5 * y)])
    return (waves.sum(2) + rng.normal(0, 0.02, (n, 3, 32, 32))).astype(np.float32)


def build(out: Path, seed: int = 3) -> Path:
    """The student, converted, with one operating point."""
    import torch

    import edgekit

    class Student(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.deep = torch.nn.Conv2d(8, 16, 3, stride=2, padding=1)
            self.last = torch.nn.Conv2d(16, 16, 3, padding=1)
            self.heads = torch.nn.ModuleList([torch.nn.Linear(8, 4), torch.nn.Linear(16, 4), torch.nn.Linear(16, 4)])

        def forward(self, image):
            a = torch.relu(self.stem(image))
            b = torch.relu(self.deep(a))
            c = torch.relu(self.last(b))
            said = [head(x.mean((2, 3))) for head, x in zip(self.heads, (a, b, c), strict=True)]
            return {"early": said[0], "middle": said[1], "full": said[2]}

    torch.manual_seed(seed)
    module = Student().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    edgekit.convert(
        module,
        out=out,
        calibration={NAME: pictures(24)},
        dynamic=(f"{NAME}:0=B:1-64",),
        exits=("early", "middle", "full"),
        formats=["onnx"],
        precision="fp32",
    )
    with er.open_bundle(out) as bundle, Chain(bundle, GRAPH) as chain:
        scores = [score("max_softmax", said) for said in chain.scores({NAME: pictures(64, 1)})]
        thresholds = tuple(float(np.median(row)) for row in scores[:-1])
        write(out, bundle.manifest, (point(bundle.manifest, 0.01, (*thresholds, 0.0)),))
    return out


def point(found: manifest.Manifest, risk: float, thresholds: tuple[float, ...], **changes: object) -> OperatingPoint:
    """An operating point with thresholds that half of the samples reach; its risk is only said."""
    ids, digest = chain_of(found, GRAPH)
    row = OperatingPoint(
        id=f"{GRAPH}.risk{risk:g}",
        graph_chain=ids,
        thresholds=thresholds,
        risk=risk,
        confidence_level=0.95,
        n=300,
        empirical_risk=0.0,
        exit_fractions=(0.5, 0.25, 0.25),
        of=GRAPH,
        chain_sha256=digest,
    )
    return msgspec.structs.replace(row, **changes)


def write(path: Path, found: manifest.Manifest, points: tuple[OperatingPoint, ...], **changes: object) -> None:
    found = msgspec.structs.replace(found, operating_points=points, **changes)
    (path / "manifest.json").write_bytes(manifest.dump(found))
