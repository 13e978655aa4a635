"""Files that commands write: whole or not at all, also where the disk says no."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgekit.cli import app
from edgekit.files import check_writable, whole_file, whole_folder, write_text, write_texts
from edgekit_runtime.errors import UsageError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with whole_file(path, "-o") as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and _names(tmp_path) == ["page.html"]


def test_what_fails_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path, "-o") as partial:
        partial.write_text("ne")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "models", "-o") as folder:
        (folder / "one").write_text("1")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and _names(tmp_path) == ["page.html"]


def test_a_full_disk_is_told_in_words(tmp_path: Path) -> None:
    told = pytest.raises(UsageError, match=r"-o .*models cannot be written: No space")
    with told, whole_folder(tmp_path / "models", "-o") as folder:
        (folder / "one").write_text("1")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not _names(tmp_path)


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--report .*page.html cannot be written: Not a directory"):
        write_text(tmp_path / "file" / "page.html", "text", "--report")
    with pytest.raises(UsageError, match=r"-o .*out cannot be written"), whole_folder(tmp_path / "file" / "out", "-o"):
        pass


def test_files_that_belong_together_appear_together_or_leave_the_old_ones(tmp_path: Path, monkeypatch) -> None:
    texts = {"index.html": "new", "devices/pi4.html": "new", "devices/pi5.html": "new"}
    write = Path.write_text

    def interrupted(path: Path, text: str, **more) -> int:
        if "pi5" in path.name:
            raise KeyboardInterrupt
        return write(path, text, **more)

    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "index.html").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", interrupted)
        for folder in ("old", "made/here"):
            with pytest.raises(KeyboardInterrupt):
                write_texts(tmp_path / folder, texts, "--report")
    assert _names(tmp_path) == ["old"] and _names(tmp_path / "old") == ["index.html"]
    assert (tmp_path / "old" / "index.html").read_text() == "old"
    written = write_texts(tmp_path / "old", texts, "--report")
    assert [path.read_text() for path in written] == ["new"] * 3
    assert _names(tmp_path / "old") == ["devices", "index.html"] and len(_names(tmp_path / "old" / "devices")) == 2


def test_folders_above_are_made_and_go_again_where_nothing_comes_of_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "page.html", "text", "--report")
    assert (tmp_path / "a" / "b" / "page.html").read_text() == "text"
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "c" / "d" / "page.html", "-o"):
        raise KeyboardInterrupt
    assert _names(tmp_path) == ["a"]


def test_a_place_is_looked_at_before_long_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path / "not" / "yet", "--report")
    assert _names(tmp_path) == ["file"]
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"--report .*file.* cannot be written: Not a directory"):
            check_writable(place, "--report")


def test_a_folder_that_holds_something_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    with pytest.raises(UsageError, match="is there already"), whole_folder(tmp_path, "-o"):
        pass
    (tmp_path / "empty").mkdir()
    with whole_folder(tmp_path / "empty", "-o") as folder:
        (folder / "one").write_text("1")
    assert (tmp_path / "empty" / "one").read_text() == "1" and _names(tmp_path) == ["empty", "kept"]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/a"), 3, "/tmp/a: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), 3, "Read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied", "a.onnx"), 3, "see who may read and write there"),
        (FileNotFoundError(errno.ENOENT, "No such file", "own.json"), 1, "this is a bug in edgekit"),
    ],
)
def test_what_the_machine_refuses_is_no_bug_of_ours(error, code, told, monkeypatch, capsys) -> None:
    def raises(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(app, "app", raises)
    assert app.run(["doctor"]) == code
    said = capsys.readouterr().err
    assert told in said and ("Traceback" in said) == (code == 1)
