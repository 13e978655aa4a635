from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

import edgekit_runtime as er
from edgekit_runtime import engines
from edgekit_runtime.errors import BundleInvalid, EngineMissing, InputMismatch, Refused, UsageError
from edgekit_runtime.manifest import Axis, Manifest, Signature, Tensor
from edgekit_runtime.testing import FakeEngine, make_bundle, matmul_onnx, using

WEIGHTS = np.arange(12, dtype=np.float32).reshape(4, 3)
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


def golden(x: np.ndarray) -> dict[str, bytes]:
    file = io.BytesIO()
    np.savez(file, x=x)
    return {"golden/inputs.npz": file.getvalue()}


def test_a_bundle_runs(tmp_path: Path) -> None:
    with er.open(make_bundle(tmp_path / "tiny.edge")) as session:
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHTS, rtol=1e-5)
        np.testing.assert_allclose(session.run({"x": X.tolist()})["y"], X @ WEIGHTS, rtol=1e-5)
        assert (session.graph.id, session.engine_name, session.threads) == ("onnx.fp32", "onnxruntime", 1)
        assert session.bundle is not None
        assert session.why.reasons[0].verdict == "chosen"
    with pytest.raises(UsageError, match="closed"):
        session.run({"x": X})


def test_what_was_seen_before_is_still_checked(tmp_path: Path) -> None:
    session = er.open(make_bundle(tmp_path / "tiny.edge"))
    for _ in range(2):
        session.run({"x": X})
        wrong_arrays: list[dict[str, np.ndarray]] = [{"x": X[:, :3]}, {"x": X.astype(np.int64)}]
        wrong_names: list[dict[str, np.ndarray]] = [{"z": X}, {"x": X, "z": X}, {}]
        for bad in wrong_arrays + wrong_names:
            with pytest.raises(InputMismatch):
                session.run(bad)


def test_more_samples_than_the_batch_axis_was_proven_for_run_in_slices(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)
    with er.open(make_bundle(tmp_path / "tiny.edge")) as session:
        np.testing.assert_allclose(session.run({"x": rows})["y"], rows @ WEIGHTS, rtol=1e-4, atol=1e-5)


@pytest.mark.alone
def test_the_session_adds_little_to_the_engines_own_call(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "tiny.edge")
    session = er.open(root)
    own = engines.get("onnxruntime").load(root / "graphs" / "onnx.fp32.onnx")._session  # type: ignore[attr-defined]

    def fastest_us(once: Callable[[], object]) -> float:
        times = []
        for _ in range(300):
            start = time.perf_counter_ns()
            once()
            times.append(time.perf_counter_ns() - start)
        return float(np.percentile(times, 25)) / 1e3

    extra = [fastest_us(lambda: session.run({"x": X})) - fastest_us(lambda: own.run(None, {"x": X})) for _ in range(5)]
    assert min(extra) <= 20  # the contract; alone on a machine it is about 1


def test_a_packed_bundle_runs_and_cleans_up(tmp_path: Path) -> None:
    path = er.pack(er.open_bundle(make_bundle(tmp_path / "tiny.edge")), tmp_path / "packed.edge")
    with er.open(path) as session:
        assert session.run({"x": X})["y"].shape == (2, 3)
        assert session.bundle is not None
        folder = session.bundle.root
    assert not folder.exists()


def test_bare_files_run(tmp_path: Path, ladder_bytes: Callable[..., bytes]) -> None:
    (tmp_path / "g.onnx").write_bytes(matmul_onnx(WEIGHTS))
    with er.open(tmp_path / "g.onnx") as session:
        np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHTS, rtol=1e-5)
        assert session.bundle is None
        with pytest.raises(UsageError, match="bare file"):
            session.encode(text="x")
    (tmp_path / "g.tflite").write_bytes(ladder_bytes(WEIGHTS.T, (2,)))
    with er.open(tmp_path / "g.tflite", engine="litert") as session:
        np.testing.assert_allclose(session.run({"x": X[None]})["y"], (X @ WEIGHTS)[None], rtol=1e-4)
        with pytest.raises(InputMismatch, match="axis 1 must be 2"):
            session.run({"x": np.zeros((1, 3, 4), np.float32)})
    with pytest.raises(UsageError, match="does not run"):
        er.open(tmp_path / "g.tflite", engine="onnxruntime")
    with pytest.raises(Refused, match="does not exist"):
        er.open(tmp_path / "h.onnx")


def ladder_of(content: bytes, lengths: tuple[int, ...], role: str) -> dict[str, object]:
    def change(found: Manifest) -> Manifest:
        x = Tensor(name="x", dtype="float32", shape=("batch", "time", 4))
        y = Tensor(name="y", dtype="float32", shape=("batch", "time", 3))
        rungs = tuple(Signature(name=f"t{size}", sizes={"batch": 1, "time": size}) for size in lengths)
        axes = (
            Axis(symbol="batch", min=1, max=64, role="batch"),
            Axis(symbol="time", min=1, max=max(lengths), role=role),  # type: ignore[arg-type]
        )
        graph = replace(found.graphs[0], inputs=(x,), outputs=(y,), signatures=rungs)
        return replace(found, inputs=(x,), outputs=(y,), axes=axes, graphs=(graph,))

    return {"graphs": {"tflite.fp32": content}, "change": change}


def test_a_tflite_ladder_takes_any_batch_and_length(tmp_path: Path, ladder_bytes: Callable[..., bytes]) -> None:
    fields = ladder_of(ladder_bytes(WEIGHTS.T, (4, 8)), (4, 8), "length")
    with er.open(make_bundle(tmp_path / "tiny.edge", **fields)) as session:  # type: ignore[arg-type]
        for batch, time_steps in ((1, 4), (1, 3), (3, 8), (5, 1), (2, 6)):
            x = np.random.default_rng(batch).normal(size=(batch, time_steps, 4)).astype(np.float32)
            made = session.run({"x": x})["y"]
            np.testing.assert_allclose(made, x @ WEIGHTS, rtol=1e-4, atol=1e-5)
        with pytest.raises(InputMismatch, match="time is 9 in x, allowed are 1 to 8"):
            session.run({"x": np.zeros((1, 9, 4), np.float32)})


def test_a_ladder_that_cannot_be_padded_names_its_sizes(tmp_path: Path, ladder_bytes: Callable[..., bytes]) -> None:
    fields = ladder_of(ladder_bytes(WEIGHTS.T, (4, 8)), (4, 8), "other")
    with er.open(make_bundle(tmp_path / "tiny.edge", **fields)) as session:  # type: ignore[arg-type]
        assert session.run({"x": np.zeros((2, 8, 4), np.float32)})["y"].shape == (2, 8, 3)
        with pytest.raises(InputMismatch, match="it has batch 1, time 4; batch 1, time 8"):
            session.run({"x": np.zeros((1, 5, 4), np.float32)})


def test_a_file_of_one_fixed_batch_is_run_in_slices(tmp_path: Path) -> None:
    fixed = (
        Tensor(name="x", dtype="float32", shape=(2, 4)),
        Tensor(name="y", dtype="float32", shape=(2, 3)),
    )
    product = {"onnx.fp32.onnx": lambda arrays: {"y": arrays["x"] @ WEIGHTS}}
    fake = FakeEngine("fake", product, inputs=fixed[:1], outputs=fixed[1:])

    def change(found: Manifest) -> Manifest:
        return replace(found, graphs=(replace(found.graphs[0], inputs=fixed[:1], outputs=fixed[1:]),))

    root = make_bundle(tmp_path / "tiny.edge", change=change)
    with using(fake), er.open(root, engine="fake") as session:
        x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
        np.testing.assert_allclose(session.run({"x": x})["y"], x @ WEIGHTS, rtol=1e-5)
        assert fake.calls == 3


def test_threads_share_a_session(
    tmp_path: Path, ladder_bytes: Callable[..., bytes], in_threads: Callable[[Callable[[int], None]], None]
) -> None:
    fields = ladder_of(ladder_bytes(WEIGHTS.T, (4, 8, 16)), (4, 8, 16), "length")
    session = er.open(make_bundle(tmp_path / "tiny.edge", **fields))  # type: ignore[arg-type]

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            x = rng.normal(size=(int(rng.integers(1, 4)), int(rng.integers(1, 17)), 4)).astype(np.float32)
            np.testing.assert_allclose(session.run({"x": x})["y"], x @ WEIGHTS, rtol=1e-3, atol=1e-5)

    in_threads(work)


TWO = {"onnx.fp32": matmul_onnx(WEIGHTS), "onnx.int8": matmul_onnx(WEIGHTS + 1)}


def test_undecided_graphs_are_measured_at_opening_and_kept_on_request(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "tiny.edge", graphs=TWO, files=golden(x=X))
    start = time.monotonic()
    with er.open(root) as session:
        assert time.monotonic() - start < 3
        assert session.why.basis == "short measurement"
        assert {row.graph for row in session.why.reasons} == set(TWO)
        assert all(row.p50_ms is not None for row in session.why.reasons)
    assert not (root / "measurements").exists()
    with er.open(root, keep=True) as session:
        first = session.graph.id
    rows = er.open_bundle(root).measurements()
    assert {row.graph for row in rows} == set(TWO)
    assert {row.device for row in rows} == {er.this_machine().id}
    with er.open(root) as session:
        assert (session.why.basis, session.graph.id) == ("measured", first)


def test_without_golden_inputs_the_smallest_graph_is_taken(tmp_path: Path) -> None:
    with er.open(make_bundle(tmp_path / "tiny.edge", graphs=TWO)) as session:
        assert session.why.basis == "size"


def test_a_graph_no_engine_here_takes_does_not_stop_the_others(tmp_path: Path) -> None:
    graphs = {"onnx.fp32": matmul_onnx(WEIGHTS), "onnx.int8": b"not a model"}
    with er.open(make_bundle(tmp_path / "tiny.edge", graphs=graphs, files=golden(x=X))) as session:
        assert session.graph.id == "onnx.fp32"
        assert any(row.graph == "onnx.int8" and "not a whole ONNX file" in row.why for row in session.why.reasons)
    only = {"onnx.int8": b"not a model", "onnx.fp32": b"neither"}
    with pytest.raises(Refused):
        er.open(make_bundle(tmp_path / "broken.edge", graphs=only, files=golden(x=X)))


def test_a_file_whose_names_are_not_the_manifests_is_refused(tmp_path: Path) -> None:
    def change(found: Manifest) -> Manifest:
        other = replace(found.graphs[0].inputs[0], name="image")
        return replace(found, inputs=(other,), graphs=(replace(found.graphs[0], inputs=(other,)),))

    with pytest.raises(BundleInvalid, match="the manifest lists"):
        er.open(make_bundle(tmp_path / "tiny.edge", change=change))


def test_a_missing_engine_is_named_with_its_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "available", lambda: ())
    with pytest.raises(EngineMissing) as caught:
        er.open(make_bundle(tmp_path / "tiny.edge"))
    assert caught.value.remedy == "pip install 'edgekit[onnxruntime]'"
    (tmp_path / "g.onnx").write_bytes(matmul_onnx(WEIGHTS))
    with pytest.raises(EngineMissing):
        er.open(tmp_path / "g.onnx")


def test_wrong_wishes_are_usage_errors(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "tiny.edge")
    other = FakeEngine("other", {}, inputs=(), outputs=(), formats=("tflite",))
    for wish in ({"graph": "onnx.fp64"}, {"engine": "tensorflow"}, {"threads": 0}, {"engine": "other"}):
        with using(other), pytest.raises(UsageError):
            er.open(root, **wish)  # type: ignore[arg-type]
    with er.open(root, graph="onnx.fp32", engine="onnxruntime", threads=2) as session:
        assert session.threads == 2
