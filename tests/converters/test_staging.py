import errno
import os
import subprocess
import sys
from pathlib import Path

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


@pytest.fixture
def dead_pid():
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_a_killed_conversion_left_is_removed_and_nothing_else(tmp_path, dead_pid):
    stale = [f".s.edge.partial-{dead_pid}", f".s.edge.partial-{dead_pid}-work", f".s.edge.partial-{dead_pid}-old"]
    kept = [f".s.edge.partial-{os.getppid()}", f".t.edge.partial-{dead_pid}", ".s.edge.partial-notes", "s.edge"]
    for name in (*stale, *kept):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    with pytest.raises(ValueError, match="midway"), staging(tmp_path / "s.edge", force=True):
        raise ValueError("midway")
    assert _leftovers(tmp_path) == sorted(kept)


def test_a_bundle_that_a_killed_conversion_had_moved_aside_goes_back(tmp_path, dead_pid):
    (tmp_path / f".s.edge.partial-{dead_pid}-old").mkdir()
    (tmp_path / f".s.edge.partial-{dead_pid}-old" / "manifest.json").write_text("old")
    with pytest.raises(UsageError, match="exists"), staging(tmp_path / "s.edge"):
        pass
    assert _leftovers(tmp_path) == ["s.edge"]
    assert (tmp_path / "s.edge" / "manifest.json").read_text() == "old"


@pytest.mark.parametrize("fails", [True, False])
def test_folders_above_the_target_stay_only_with_a_bundle(tmp_path, fails):
    (tmp_path / "here").mkdir()
    try:
        with staging(tmp_path / "here" / "new" / "deeper" / "s.edge") as stage:
            if fails:
                raise ValueError("midway")
            stage.publish()
    except ValueError:
        assert _leftovers(tmp_path / "here") == []
    else:
        assert _leftovers(tmp_path / "here" / "new" / "deeper") == ["s.edge"]


def test_a_target_below_a_file_is_a_usage_error(tmp_path):
    (tmp_path / "notes").write_text("text")
    with pytest.raises(UsageError, match="notes is a file"), staging(tmp_path / "notes" / "deep" / "s.edge"):
        pass


def test_an_interrupted_pack_keeps_the_bundle(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from edgekit_converters import pack

    folder = tmp_path / "s.edge"
    folder.mkdir()
    (folder / "manifest.json").write_text("whole")
    monkeypatch.setattr(pack, "pack", lambda bundle, target: None)  # the second rename then finds no packed file
    with pytest.raises(FileNotFoundError):
        pack.pack_in_place(SimpleNamespace(root=folder))
    assert _leftovers(tmp_path) == ["s.edge"]
    assert (folder / "manifest.json").read_text() == "whole"


def test_a_place_that_takes_no_folder_is_refused_in_words() -> None:
    # /proc takes no files from anybody, root included; the cleaning up must not fail over the first error.
    with pytest.raises(Refused, match=r"cannot write in /proc"), staging(Path("/proc/x.edge")):
        pass
