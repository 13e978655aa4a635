from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

import edgekit_runtime as er
from edgekit_runtime import manifest, packed
from edgekit_runtime.bundle import Bundle, read_arrays
from edgekit_runtime.errors import BundleInvalid, Refused, UsageError
from edgekit_runtime.manifest import FileEntry
from edgekit_runtime.measurement import Energy, Environment, Latency, Measurement, Memory, Verdict
from edgekit_runtime.testing import make_bundle

ROW = Measurement(
    device="local-1",
    engine="onnxruntime",
    engine_version="1",
    threads=1,
    precision="fp32",
    graph="onnx.fp32",
    inputs={"x": (1, 4)},
    latency_ms=Latency(p50=1.0, n=3, samples=(1.0, 1.0, 2.0)),
    memory=Memory(file_bytes=10),
    energy=Energy(kind="unavailable", reason="no sensor"),
    environment=Environment(cpu="x"),
    verdict=Verdict(kind="sound"),
)


def npz(name: str, array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{name: array})
    return file.getvalue()


def test_a_bundle_is_read_and_checked(tmp_path: Path) -> None:
    files = {"golden/inputs.npz": npz("x", np.ones((1, 4))), "golden/onnx.fp32.npz": npz("y", np.ones((1, 3)))}
    bundle = er.open_bundle(make_bundle(tmp_path / "tiny.edge", files=files))
    assert bundle.check_files() == ("golden/inputs.npz", "golden/onnx.fp32.npz", "graphs/onnx.fp32.onnx")
    assert bundle.bundle_id == manifest.bundle_id((bundle.root / "manifest.json").read_bytes())
    assert bundle.golden_inputs()["x"].shape == (1, 4)
    assert list(bundle.golden()) == ["onnx.fp32"]
    assert bundle.graph_path("onnx.fp32").name == "onnx.fp32.onnx"
    with pytest.raises(UsageError) as caught:
        bundle.graph("onnx.fp3")
    assert "did you mean 'onnx.fp32'" in caught.value.remedy


def change_a_byte(root: Path) -> None:
    path = root / "graphs" / "onnx.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def remove(root: Path) -> None:
    (root / "graphs" / "onnx.fp32.onnx").unlink()


def add(root: Path) -> None:
    (root / "graphs" / "extra.onnx").write_bytes(b"")


def symbolic_link(root: Path) -> None:
    path = root / "graphs" / "onnx.fp32.onnx"
    path.rename(root.parent / "outside.onnx")
    path.symlink_to(root.parent / "outside.onnx")


def linked_folder(root: Path) -> None:
    (root / "graphs").rename(root.parent / "outside")
    (root / "graphs").symlink_to(root.parent / "outside")


def hard_link(root: Path) -> None:
    os.link(root / "graphs" / "onnx.fp32.onnx", root.parent / "again.onnx")


def no_manifest(root: Path) -> None:
    (root / "manifest.json").unlink()


def cut_manifest(root: Path) -> None:
    path = root / "manifest.json"
    path.write_bytes(path.read_bytes()[:100])


def newer_schema(root: Path) -> None:
    path = root / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"edgekit.bundle/1", b"edgekit.bundle/2"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_a_byte, r"graphs/onnx\.fp32\.onnx is not the file"),
        (remove, r"graphs/onnx\.fp32\.onnx is missing"),
        (add, r"graphs/extra\.onnx is not listed"),
        (symbolic_link, "symbolic link"),
        (linked_folder, "symbolic link"),
        (hard_link, "hard link"),
        (no_manifest, "has no manifest.json"),
        (cut_manifest, "manifest.json is not readable"),
        (newer_schema, "edgekit.bundle/2"),
    ],
)
def test_a_damaged_bundle_is_refused_by_name(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    root = make_bundle(tmp_path / "tiny.edge")
    damage(root)
    with pytest.raises(BundleInvalid, match=words) as caught:
        er.open(root)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "graphs/../../x", "a\\b", "c:/x", "", "a//b", "./a", "a\0b"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    def change(found: manifest.Manifest) -> manifest.Manifest:
        return replace(found, files={**found.files, name: FileEntry(bytes=0, sha256="")})

    with pytest.raises(BundleInvalid, match="leads out"):
        er.open_bundle(make_bundle(tmp_path / "tiny.edge", change=change))


def test_a_graph_that_is_not_listed_under_its_hash_is_refused(tmp_path: Path) -> None:
    def change(found: manifest.Manifest) -> manifest.Manifest:
        return replace(found, graphs=(replace(found.graphs[0], sha256="0" * 64),))

    with pytest.raises(BundleInvalid, match=r"graph onnx\.fp32"):
        er.open(make_bundle(tmp_path / "tiny.edge", change=change))


def test_measurements_stay_outside_the_identity(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "tiny.edge")
    before = er.open_bundle(root)
    first = before.add_measurement(ROW)
    assert before.add_measurement(replace(ROW, engine_version="2")) == first  # in place of the older one
    before.add_measurement(replace(ROW, threads=4))
    after = er.open_bundle(root)
    after.check_files()
    assert after.bundle_id == before.bundle_id
    assert sorted((row.threads, row.engine_version) for row in after.measurements()) == [(1, "2"), (4, "1")]
    assert [path.name for path in (root / "measurements").iterdir() if path.name.startswith(".")] == []


def test_a_newer_or_damaged_measurement_is_refused_by_name(tmp_path: Path) -> None:
    bundle = er.open_bundle(make_bundle(tmp_path / "tiny.edge"))
    path = bundle.add_measurement(ROW)
    path.write_bytes(path.read_bytes().replace(b"edgekit.measurement/1", b"edgekit.measurement/2"))
    with pytest.raises(BundleInvalid, match=r"edgekit\.measurement/2"):
        bundle.measurements()
    path.write_bytes(msgspec.json.encode({"schema": "edgekit.measurement/1"}))
    with pytest.raises(BundleInvalid, match="not a measurement"):
        bundle.measurements()


def test_packing_is_deterministic_and_gives_the_same_bundle(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "tiny.edge", files={"assets/labels.txt": b"a\nb\nc\n"})
    bundle = er.open_bundle(root)
    bundle.add_measurement(ROW)
    one, two = er.pack(bundle, tmp_path / "one"), er.pack(bundle, tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()
    with er.open_bundle(one) as unpacked:
        assert unpacked.bundle_id == bundle.bundle_id
        assert unpacked.check_files() == bundle.check_files()
        assert unpacked.measurements() == ()
        folder = unpacked.root
        with pytest.raises(UsageError, match="packed"):
            unpacked.add_measurement(ROW)
    assert not folder.exists()
    with pytest.raises(UsageError, match="inside the bundle"):
        er.pack(bundle, root / "inside.edge")


def test_a_packed_bundle_is_unpacked_where_asked_but_never_over_something(tmp_path: Path) -> None:
    one = er.pack(er.open_bundle(make_bundle(tmp_path / "tiny.edge")), tmp_path / "one")
    assert er.open_bundle(one, unpack_to=tmp_path / "there").root == tmp_path / "there"
    with pytest.raises(UsageError, match="not empty"):
        er.open_bundle(one, unpack_to=tmp_path / "there")


def archive(path: Path, *entries: tuple[str, bytes, int, int]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content, mode, method in entries:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = method
            file.writestr(entry, content)
    return path


PLAIN = stat.S_IFREG | 0o644


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (("../escaped", b"x", PLAIN, zipfile.ZIP_STORED), "leads out"),
        (("/tmp/escaped", b"x", PLAIN, zipfile.ZIP_STORED), "leads out"),
        (("link", b"/etc/passwd", stat.S_IFLNK | 0o777, zipfile.ZIP_STORED), "symbolic link"),
        (("bomb", b"\0" * 100_000, PLAIN, zipfile.ZIP_DEFLATED), "compressed"),
    ],
)
def test_hostile_archives_are_refused_and_leave_nothing(
    tmp_path: Path, entry: tuple[str, bytes, int, int], words: str
) -> None:
    path = archive(tmp_path / "bad.edge", entry)
    with pytest.raises(BundleInvalid, match=words):
        er.open_bundle(path, unpack_to=tmp_path / "there")
    assert [item.name for item in tmp_path.rglob("*")] == ["bad.edge"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_listed_twice_is_refused(tmp_path: Path) -> None:
    twice = archive(tmp_path / "bad.edge", *[("a", b"x", PLAIN, zipfile.ZIP_STORED)] * 2)
    with pytest.raises(BundleInvalid, match="twice"):
        er.open_bundle(twice)


def test_too_many_or_too_large_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = er.pack(er.open_bundle(make_bundle(tmp_path / "tiny.edge")), tmp_path / "one")
    monkeypatch.setattr(packed, "MAX_TOTAL_BYTES", 100)
    with pytest.raises(BundleInvalid, match="more than"):
        er.open_bundle(one)


def test_a_changed_byte_in_a_packed_bundle_is_refused(tmp_path: Path) -> None:
    one = er.pack(er.open_bundle(make_bundle(tmp_path / "tiny.edge")), tmp_path / "one")
    content = bytearray(one.read_bytes())
    content[content.index(b"MatMul")] ^= 1
    one.write_bytes(content)
    with pytest.raises(BundleInvalid):
        er.open(one)


@pytest.mark.parametrize("content", [b"", b"no bundle at all"])
def test_other_files_are_no_bundles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.edge").write_bytes(content)
    with pytest.raises(Refused, match="not a bundle"):
        er.open_bundle(tmp_path / "x.edge")
    with pytest.raises(Refused, match="does not exist"):
        er.open_bundle(tmp_path / "y.edge")


def test_arrays_are_never_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BundleInvalid, match=r"x\.npz"):
        read_arrays(path)


def test_a_bundle_is_equal_to_itself_read_again(tmp_path: Path) -> None:
    root = make_bundle(tmp_path / "tiny.edge")
    assert isinstance(er.open_bundle(root), Bundle)
    assert er.open_bundle(root) == er.open_bundle(root)
