"""Tiny graphs, made in the test: ONNX by text, TFLite by the schema's object API. Real files: ../shared/data."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of reference data; tests that need it are skipped where it is absent."""
    if not (DATA / "models").is_dir():
        pytest.skip("../shared/data is not here")
    return DATA


@pytest.fixture
def in_threads() -> Callable[[Callable[[int], None]], None]:
    """Calls a function with 0 to 3 in four threads at once and raises what the first of them raised."""

    def run(work: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(work, number) for number in range(4)]:
                future.result()

    return run


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX model given as text, with its initializers."""
    onnx = pytest.importorskip("onnx")

    def write(text: str, **initializers: np.ndarray) -> Path:
        model = onnx.parser.parse_model(text)
        for name, value in initializers.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path

    return write


@pytest.fixture(scope="session")
def ladder_bytes() -> Callable[..., bytes]:
    """Builds a TFLite file with one signature `tN` a length: x float32 [1, N, 4] -> y = x @ w.T [1, N, 3]."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")

    def named(kind: type, **fields: object) -> object:
        made = kind()
        for name, value in fields.items():
            assert hasattr(made, name)
            setattr(made, name, value)
        return made

    def build(
        weights: np.ndarray,
        lengths: tuple[int, ...],
        operator: int = schema.BuiltinOperator.FULLY_CONNECTED,
        version: int = 1,
        custom: str = "",
    ) -> bytes:
        rows, columns = weights.shape
        float32 = schema.TensorType.FLOAT32
        signatures, subgraphs = [], []
        for number, length in enumerate(lengths):
            tensors = [
                named(schema.TensorT, name=b"x", shape=[1, length, columns], type=float32, buffer=0),
                named(schema.TensorT, name=b"w", shape=[rows, columns], type=float32, buffer=1),
                named(schema.TensorT, name=b"y", shape=[1, length, rows], type=float32, buffer=0),
            ]
            options = named(schema.FullyConnectedOptionsT, keepNumDims=True)
            fields = {"opcodeIndex": 0, "inputs": [0, 1], "outputs": [2]}
            if not custom:
                kind = schema.BuiltinOptions.FullyConnectedOptions
                fields |= {"builtinOptionsType": kind, "builtinOptions": options}
            op = named(schema.OperatorT, **fields)
            subgraphs.append(
                named(schema.SubGraphT, tensors=tensors, inputs=[0], outputs=[2], operators=[op], name=b"main")
            )
            entry = {"inputs": [named(schema.TensorMapT, name=b"x", tensorIndex=0)]}
            entry["outputs"] = [named(schema.TensorMapT, name=b"y", tensorIndex=2)]
            signatures.append(
                named(schema.SignatureDefT, signatureKey=f"t{length}".encode(), subgraphIndex=number, **entry)
            )
        code = named(
            schema.OperatorCodeT,
            builtinCode=operator,
            deprecatedBuiltinCode=min(operator, 127),
            version=version,
            customCode=custom.encode() or None,
        )
        data = np.frombuffer(weights.astype("<f4").tobytes(), np.uint8)
        model: Any = named(
            schema.ModelT,
            version=3,
            operatorCodes=[code],
            subgraphs=subgraphs,
            buffers=[schema.BufferT(), named(schema.BufferT, data=data)],
            signatureDefs=signatures,
        )
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    return build
