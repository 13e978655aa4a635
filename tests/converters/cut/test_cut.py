from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgekit
import edgekit_runtime as er
from edgekit.golden import verify_bundle
from edgekit_converters.cut.onnx_flow import see
from edgekit_runtime.bundle import Bundle
from edgekit_runtime.chain import Chain, exits_of, split_points
from edgekit_runtime.engines.onnxruntime import OnnxRuntime
from edgekit_runtime.errors import InputMismatch, UsageError
from tests.converters.cut.conftest import loud, texts

GRAPHS = ("onnx.fp32", "onnx.int8", "tflite.fp32", "tflite.int8")


def requests(bundle: Bundle) -> list[dict[str, np.ndarray]]:
    """Batch 1, 8 and 3; lengths as seen, short, the longest and the shortest."""
    rng = np.random.default_rng(5)
    if bundle.manifest.inputs[0].name == "image":
        return [{"image": rng.normal(size=(n, 1, 8, 8)).astype(np.float32)} for n in (1, 8, 3)]
    found = []
    for n, length in ((1, 20), (8, 7), (3, 32), (2, 1)):
        ids = rng.integers(1, 400, (n, length))
        ids[:, 1:][rng.random((n, length - 1)) < 0.2] = 0
        found.append({"ids": ids})
    return found


@pytest.fixture(params=["exits_bundle", "masked_bundle"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    found: Bundle = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_head_and_tail_answer_bit_by_bit_as_the_uncut_graph(bundle: Bundle, graph: str) -> None:
    points = split_points(bundle.manifest, graph)
    assert len(points) >= 2
    with er.open(bundle.root, graph=graph, threads=1) as session:
        wanted = [session.run(inputs) for inputs in requests(bundle)]
    for point in points:
        with Chain(bundle, graph, stop=point.id) as head, Chain(bundle, graph, start=point.place) as tail:
            for inputs, want in zip(requests(bundle), wanted, strict=True):
                crossing = head.run(inputs)
                assert set(crossing) == {t.name for t in point.tensors} | set(point.tail_inputs)
                for name, got in tail.run(crossing).items():
                    assert got.tobytes() == want[name].tobytes(), (point.id, name)


@pytest.mark.parametrize("graph", ("onnx.int8", "tflite.int8"))
def test_the_middle_between_two_split_points_fits_in(exits_bundle: Bundle, graph: str) -> None:
    points = split_points(exits_bundle.manifest, graph)
    inputs = requests(exits_bundle)[1]
    with (
        er.open(exits_bundle.root, graph=graph, threads=1) as session,
        Chain(exits_bundle, graph, stop=points[0].id) as head,
        Chain(exits_bundle, graph, start=points[0].id, stop=points[-1].id) as middle,
        Chain(exits_bundle, graph, start=points[-1].id) as tail,
    ):
        got = tail.run(middle.run(head.run(inputs)))
        assert got["full"].tobytes() == session.run(inputs)["full"].tobytes()


def test_what_crosses_in_the_static_int8_graph_is_int8_with_its_scale(exits_bundle: Bundle) -> None:
    for graph in ("onnx.int8", "tflite.int8"):
        for point in split_points(exits_bundle.manifest, graph):
            assert all(t.dtype in ("uint8", "int8") and t.scale for t in point.tensors), point


def test_pictures_cross_with_channels_last_so_that_no_piece_turns_them(exits_bundle: Bundle) -> None:
    # With channels first the residual block between two borders would turn its pictures three times.
    wires = [tensor for point in split_points(exits_bundle.manifest, "onnx.int8") for tensor in point.tensors]
    pictures = [tensor for tensor in wires if len(tensor.shape) == 4]
    assert pictures and all(tensor.shape[1:3] in ((8, 8), (4, 4)) for tensor in pictures)
    inside = 0
    for piece in (item for item in exits_bundle.manifest.graphs if item.of == "onnx.int8"):
        four = {len(tensor.shape) for tensor in (*piece.inputs, *piece.outputs)} == {4}
        if not four or piece.inputs[0].dtype == "float32":
            continue
        tensor = piece.inputs[0]
        given = {tensor.name: np.zeros([size if isinstance(size, int) else 1 for size in tensor.shape], tensor.dtype)}
        kinds = [cost.kind for cost in OnnxRuntime().trace(exits_bundle.graph_path(piece), given)]
        assert "QLinearConv" in kinds and "Transpose" not in kinds, (piece.id, kinds)
        inside += 1
    assert inside


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_int8_shares_of_a_graph_are_those_of_its_pieces(bundle: Bundle, graph: str) -> None:
    whole = bundle.graph(graph)
    pieces = [piece for piece in bundle.manifest.graphs if piece.of == graph]
    macs = sum(piece.macs or 0 for piece in pieces)
    share = sum(piece.executed_int8_macs_fraction * (piece.macs or 0) for piece in pieces) / macs
    # The engine's count of the whole includes work that has no share of its own in a piece's MACs (masks, sums).
    assert share == pytest.approx(whole.executed_int8_macs_fraction, abs=0.02)
    heavy = [piece for piece in pieces if (piece.macs or 0) > 0.1 * macs]
    assert heavy
    for piece in heavy:
        assert piece.int8_weight_bytes_fraction == pytest.approx(whole.int8_weight_bytes_fraction, abs=0.02), piece.id


def test_weights_of_onnx_segments_lie_in_the_whole_graph_s_file_alone(exits_bundle: Bundle) -> None:
    import onnx

    for graph in ("onnx.fp32", "onnx.int8"):
        whole = exits_bundle.graph(graph)
        pieces = [g for g in exits_bundle.manifest.graphs if g.of == graph]
        assert pieces and all(piece.weights == whole.path for piece in pieces)
        for piece in pieces:
            model = onnx.load(exits_bundle.graph_path(piece), load_external_data=False)
            assert all(len(tensor.raw_data) < 128 for tensor in model.graph.initializer)


def test_tflite_pieces_share_one_file_no_larger_than_one_and_a_quarter_of_the_whole(masked_bundle: Bundle) -> None:
    for graph in ("tflite.fp32", "tflite.int8"):
        paths = {g.path for g in masked_bundle.manifest.graphs if g.of == graph}
        assert len(paths) == 1
        size = masked_bundle.manifest.files[paths.pop()].bytes
        assert size <= 1.25 * masked_bundle.graph(graph).bytes + 4096  # the weights are tiny here, the tables are not


def test_the_inputs_that_a_tail_reads_again_are_listed_and_billed(masked_bundle: Bundle) -> None:
    late = split_points(masked_bundle.manifest, "onnx.int8")[1]
    assert late.tail_inputs == ("ids",)
    assert late.bytes >= 8 * 20


def test_macs_before_and_after_add_up_and_rise(bundle: Bundle) -> None:
    for graph in GRAPHS:
        points = split_points(bundle.manifest, graph)
        assert len({p.macs_before + p.macs_after for p in points}) == 1
        assert [p.macs_before for p in points] == sorted(p.macs_before for p in points)


def test_places_have_the_same_names_in_every_format(exits_bundle: Bundle) -> None:
    names = {graph: {p.place for p in split_points(exits_bundle.manifest, graph)} for graph in GRAPHS}
    assert {"block", "down"} <= set.intersection(*names.values())


def test_every_place_that_was_not_used_says_why(bundle: Bundle) -> None:
    for graph in GRAPHS:
        rows = json.loads((bundle.root / f"assets/cuts/{graph}.json").read_text())
        assert {row["fate"] for row in rows} > {"cut"}
        assert all(row["fate"] for row in rows)


def test_verify_runs_every_piece_and_sees_a_changed_one(exits_bundle: Bundle, copy_of) -> None:
    checks = verify_bundle(exits_bundle.root)
    assert all(check.ok for check in checks)
    pieces = [graph.id for graph in exits_bundle.manifest.graphs if graph.role != "full"]
    assert all(any(check.name.startswith(piece + " ") for check in checks) for piece in pieces)
    changed = copy_of(exits_bundle)
    path = changed.graph_path(pieces[0])
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert not all(check.ok for check in verify_bundle(changed.root))


@pytest.mark.parametrize("graph", GRAPHS)
def test_exits_say_what_the_uncut_graph_s_outputs_say(exits_bundle: Bundle, graph: str) -> None:
    assert [item.output for item in exits_of(exits_bundle.manifest, graph)] == ["early", "middle", "full"]
    inputs = requests(exits_bundle)[1]
    with er.open(exits_bundle.root, graph=graph, threads=1) as session, Chain(exits_bundle, graph) as chain:
        whole = session.run(inputs)
        for item, scores in zip(chain.exits, chain.scores(inputs), strict=True):
            assert scores.tobytes() == whole[item.output].tobytes(), item


@pytest.mark.parametrize("graph", GRAPHS)
def test_finished_samples_leave_and_the_others_get_the_answer_they_get_alone(exits_bundle: Bundle, graph: str) -> None:
    inputs = {"image": np.random.default_rng(9).normal(size=(12, 1, 8, 8)).astype(np.float32)}
    with Chain(exits_bundle, graph) as chain:
        scores = chain.scores(inputs)
        sure = [float(np.median(1 / np.exp(one - one.max(1, keepdims=True)).sum(1))) for one in scores[:2]]
        together = chain.infer(inputs, [*sure, 0.0])
        assert set(together.exits) == {0, 1, 2}
        for row in range(12):
            alone = chain.infer({"image": inputs["image"][row : row + 1]}, [*sure, 0.0])
            assert alone.exits[0] == together.exits[row]
            assert alone.outputs["full"].tobytes() == together.outputs["full"][row : row + 1].tobytes()


def test_no_exit_graph_holds_an_if(exits_bundle: Bundle) -> None:
    import onnx

    for graph in exits_bundle.manifest.graphs:
        if graph.format == "onnx":
            kinds = {n.op_type for n in onnx.load(exits_bundle.graph_path(graph), load_external_data=False).graph.node}
            assert not kinds & {"If", "Loop"}


def test_an_unknown_split_point_names_the_nearest(exits_bundle: Bundle) -> None:
    with pytest.raises(UsageError) as error:
        Chain(exits_bundle, "onnx.int8", stop="blok")
    assert "block" in str(error.value)


def test_a_stop_in_front_of_the_start_is_refused(exits_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="does not lie behind"):
        Chain(exits_bundle, "onnx.int8", start="down", stop="block")


def test_a_piece_is_no_full_graph(exits_bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="name the graph it is a piece of"):
        Chain(exits_bundle, "onnx.int8.seg0")


def test_tensors_of_another_split_point_are_refused(exits_bundle: Bundle) -> None:
    inputs = requests(exits_bundle)[0]
    with (
        Chain(exits_bundle, "onnx.int8", stop="block") as head,
        Chain(exits_bundle, "onnx.int8", start="down") as tail,
        pytest.raises(InputMismatch, match="missing"),
    ):
        tail.run(head.run(inputs))


def test_a_student_without_exits_cannot_be_asked_to_leave_early(masked_bundle: Bundle) -> None:
    with Chain(masked_bundle, "onnx.int8") as chain, pytest.raises(UsageError, match="--exits"):
        chain.infer({"ids": np.ones((1, 20), np.int64)}, [0.5])


def test_an_engine_that_cannot_join_runs_piece_by_piece_with_the_same_bits(
    exits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit_runtime.engines.onnxruntime import OnnxRuntime

    inputs = requests(exits_bundle)[1]
    with Chain(exits_bundle, "onnx.int8") as joined:
        wanted, scores = joined.run(inputs), joined.scores(inputs)
    monkeypatch.delattr(OnnxRuntime, "load_joined")
    with Chain(exits_bundle, "onnx.int8") as single:
        assert single.run(inputs)["full"].tobytes() == wanted["full"].tobytes()
        for one, other in zip(single.scores(inputs), scores, strict=True):
            assert one.tobytes() == other.tobytes()


def test_shapes_of_inner_tensors_name_the_axes_they_follow(masked_bundle: Bundle) -> None:
    probes = [{"ids": np.ones((1, 20), np.int64)}, {"ids": np.ones((3, 17), np.int64)}]
    sizes = [{"B": 1, "T": 20}, {"B": 3, "T": 17}]
    seen = see(masked_bundle.graph_path("onnx.fp32"), probes, masked_bundle.manifest.axes, sizes)
    assert ("B", "T", 128) in {tensor.shape for tensor in seen.tensors.values()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"exits": ("full", "middle", "early")}, "not in order of depth"),
        ({"exits": ("middle", "early", "full")}, "not in order of depth"),
        ({"exits": ("full",)}, "names one output"),
        ({"split_points": ("blck",)}, "block"),
        ({"split_points": ("auto", "block")}, "names of places"),
    ],
)
def test_exits_and_split_points_that_cannot_be_meant_are_refused(
    options: dict[str, tuple[str, ...]], words: str, tmp_path: Path, exits_student
) -> None:
    with pytest.raises(UsageError) as error:
        edgekit.convert(
            exits_student,
            out=tmp_path / "x.edge",
            calibration={"image": np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)},
            formats=("onnx",),
            precision="fp32",
            **options,
        )
    assert words in str(error.value)
    assert not list(tmp_path.iterdir())


def test_none_leaves_the_student_whole_but_for_its_exits(tmp_path: Path, exits_student) -> None:
    def places(exits: tuple[str, ...]) -> list[str]:
        made = edgekit.convert(
            exits_student,
            out=tmp_path / f"{len(exits)}.edge",
            calibration={"image": np.random.default_rng(0).normal(size=(8, 1, 8, 8)).astype(np.float32)},
            formats=("onnx",),
            precision="fp32",
            split_points=("none",),
            exits=exits,
        )
        return [point.place for point in made.manifest.split_points]

    assert places(()) == []
    # An exit needs its place whatever else is asked for.
    assert places(("early", "full")) == ["block"]


class CheapFirst(nn.Module):
    """ids [B, T] -> a cheap answer, which is one of the features of the full one: it crosses itself."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.deep = nn.Embedding(400, 16), nn.Linear(16, 64)
        self.cheap, self.full = nn.Linear(16, 4), nn.Linear(68, 4)

    def forward(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.table(ids).sum(1)
        cheap = self.cheap(x)
        return {"cheap": cheap, "full": self.full(torch.cat([torch.relu(self.deep(x)), cheap], dim=1))}


@pytest.fixture(scope="module")
def cheap_first(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return edgekit.convert(
        loud(CheapFirst()),
        out=tmp_path_factory.mktemp("cheap") / "cheap.edge",
        calibration={"ids": texts(16, 8)},
        dynamic=("ids:0=B:1-8",),
        exits=("cheap", "full"),
        metric="cosine",
        max_drop=0.5,
    )


@pytest.mark.parametrize("graph", GRAPHS)
def test_an_answer_that_crosses_itself_is_an_exit_without_a_head(cheap_first: Bundle, graph: str) -> None:
    manifest = cheap_first.manifest
    early = exits_of(manifest, graph)[0]
    assert early.output == "cheap" and early.after and not early.graph
    assert all(piece.inputs for piece in manifest.graphs if piece.of == graph)
    inputs = {"ids": texts(3, 8, seed=4)}
    with er.open(cheap_first.root, graph=graph, threads=1) as whole, Chain(cheap_first, graph) as chain:
        wanted = whole.run(inputs)
        for got, name in zip(chain.scores(inputs), ("cheap", "full"), strict=True):
            assert got.tobytes() == wanted[name].tobytes()
        left = chain.infer(inputs, (0.0, 0.0))
    assert left.exits.tolist() == [0, 0, 0] and left.outputs["full"].tobytes() == wanted["cheap"].tobytes()


class BelowZero(nn.Module):
    """ids [B, T] -> the largest of values of at least -10, which is what padding has: its zeros become no zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.deep = nn.Embedding(400, 16, padding_idx=0), nn.Linear(16, 24, bias=False)
        self.head = nn.Linear(24, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head((torch.relu(self.deep(self.table(ids))) - 10).amax(1))


def test_a_tensor_whose_padding_is_no_zero_crosses_as_the_rung_has_it(tmp_path: Path) -> None:
    student = loud(BelowZero())
    with torch.no_grad():
        student.table.weight[0] = 0
    bundle = edgekit.convert(
        student,
        out=tmp_path / "below.edge",
        calibration={"ids": texts(16, 20)},
        dynamic=("ids:0=B:1-8", "ids:1=T:1-32"),
        formats=("tflite",),
        split_points=("all",),
        metric="cosine",
        max_drop=0.5,
    )
    fates = [row["fate"] for row in json.loads((bundle.root / "assets/cuts/tflite.fp32.json").read_text())]
    assert not [fate for fate in fates if "differs" in fate]
    words = {"ids": texts(3, 9, seed=4)}
    widths = {}
    with er.open(bundle.root, graph="tflite.fp32", threads=1) as whole:
        wanted = whole.run(words)["output"]
    for point in split_points(bundle.manifest, "tflite.fp32"):
        with (
            Chain(bundle, "tflite.fp32", stop=point.id) as head,
            Chain(bundle, "tflite.fp32", start=point.id) as tail,
        ):
            crossing = head.run(words)
            assert tail.run(crossing)["output"].tobytes() == wanted.tobytes(), point.id
            widths |= {name: array.shape[1] for name, array in crossing.items() if array.ndim == 3}
    rungs = {signature.sizes["T"] for signature in bundle.graph("tflite.fp32").signatures}
    assert set(widths.values()) <= {9, *rungs} and set(widths.values()) & rungs, widths
