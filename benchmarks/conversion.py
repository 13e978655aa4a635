"""Conversion of a student of five million parameters to both formats: wall time and peak memory of the process."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from benchmarks.page import table

# Four encoder layers of width 320: 5.0 million parameters, dynamic batch and length.
CHILD = """
import resource, sys, time
import numpy as np, torch
import edgekit

class Student(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = lambda: torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, activation="gelu")
        self.table = torch.nn.Embedding(7000, 256, padding_idx=0)
        self.layers = torch.nn.ModuleList(layer() for _ in range(4))
        self.head = torch.nn.Linear(256, 4)
    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=ids == 0)
        keep = (ids != 0).unsqueeze(-1).to(x.dtype)
        return self.head((x * keep).sum(1) / keep.sum(1))

module = Student().eval()
ids = np.random.default_rng(0).integers(1, 7000, (32, 48))
start = time.monotonic()
edgekit.convert(module, out=sys.argv[1] + "/s.edge", calibration={"ids": ids}, dynamic=("ids:0=B:1-8", "ids:1=T:1-64"))
seconds = time.monotonic() - start
parameters = sum(p.numel() for p in module.parameters())
print(parameters, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        output = subprocess.check_output([sys.executable, "-c", CHILD, folder], text=True)
    parameters, seconds, peak = (float(part) for part in output.split()[-3:])
    allowed = 2 * 4 * parameters + 1.5e9
    rows = [
        ("parameters", f"{parameters / 1e6:.2f} million", "5 million"),
        ("both formats, fp32 and int8, verified", f"{seconds:.1f} s", "≤ 60 s"),
        ("peak memory", f"{peak / 1e9:.2f} GB", f"≤ {allowed / 1e9:.2f} GB (2 x model + 1.5 GB)"),
    ]
    return table(("what", "seen", "target"), rows)
