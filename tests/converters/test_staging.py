import errno

import pytest

from edgekit_converters.staging import staging
from edgekit_runtime.errors import Refused, UsageError


def _leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_appears_whole_and_nothing_else_stays(tmp_path):
    with staging(tmp_path / "s.edge") as stage:
        stage.write("assets/labels.txt", b"a\n")
        stage.write("manifest.json", b"{}")
        assert not (tmp_path / "s.edge").exists()
        stage.publish()
    assert _leftovers(tmp_path) == ["s.edge"]
    assert (tmp_path / "s.edge/assets/labels.txt").read_bytes() == b"a\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_whatever_ends_a_conversion_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(error), staging(tmp_path / "s.edge") as stage:
        stage.write("graphs/a.onnx", b"x")
        raise error
    assert _leftovers(tmp_path) == []


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(Refused, match="no disk space"), staging(tmp_path / "s.edge") as stage:
        stage.write("graphs/a.onnx", b"x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert _leftovers(tmp_path) == []


def test_an_existing_bundle_needs_force_and_survives_a_failure(tmp_path):
    out = tmp_path / "s.edge"
    out.mkdir()
    (out / "manifest.json").write_text("old")
    with pytest.raises(UsageError, match="exists"), staging(out):
        pass
    with pytest.raises(ValueError, match="midway"), staging(out, force=True):
        raise ValueError("midway")
    assert (out / "manifest.json").read_text() == "old"
    with staging(out, force=True) as stage:
        stage.write("manifest.json", b"new")
        stage.publish()
    assert (out / "manifest.json").read_text() == "new"
    assert _leftovers(tmp_path) == ["s.edge"]


def test_force_never_removes_a_folder_that_is_no_bundle(tmp_path):
    out = tmp_path / "thesis.edge"
    out.mkdir()
    (out / "chapter1.txt").write_text("years of work")
    with pytest.raises(UsageError, match="no bundle"), staging(out, force=True):
        pass
    assert (out / "chapter1.txt").exists()


def test_another_suffix_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError) as caught, staging(tmp_path / "student.zip"):
        pass
    assert "student.edge" in caught.value.remedy
