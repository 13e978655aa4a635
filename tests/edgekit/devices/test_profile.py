"""Profiles: strict, every figure with a source, found from a checkout and from the folder one works in."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgekit import devices
from edgekit.cli.commands.devices import figures
from edgekit.devices import store
from edgekit.devices.profile import read
from edgekit_runtime.errors import Refused, UsageError
from edgekit_runtime.machine import this_machine

FIGURE = '{ value = 4, kind = "vendor", source = "data sheet" }'
NAMED = '{ value = [], kind = "vendor", source = "data sheet" }'


def toml(extra: str = "", cores: str = FIGURE, name: str = "board") -> str:
    return (
        f'schema = "edgekit.device_profile/1"\nname = "{name}"\ntitle = "A board"\nkind = "board"\n'
        f'architecture = "aarch64"\nisa = {NAMED}\nengines = {NAMED}\n{extra}\n'
        f"[hardware]\ncores = {cores}\nclock_mhz = {FIGURE}\n"
    )


def written(folder: Path, text: str, name: str = "board") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", devices.known())
def test_each_shipped_profile_is_whole_and_every_figure_has_a_source(name: str) -> None:
    profile = devices.load(name)
    rows = figures(profile)
    assert len(rows) >= 5
    assert all(kind in ("vendor", "measured", "derived") and len(source) > 3 for _, _, kind, source in rows)
    sizes = [entry.working_set_bytes or float("inf") for entry in profile.bandwidth]
    assert sizes == sorted(sizes)


def test_the_devices_that_are_promised_are_there() -> None:
    promised = {
        "pi-zero-2-w", "pi4", "pi5", "jetson-orin-nano-cpu", "jetson-orin-nano-gpu", "phone-big-core", "n100",
        "x86-vnni", "x86-no-vnni", "nvidia-t4", "nvidia-h200",
    }  # fmt: skip
    assert promised <= set(devices.known())


def test_int8_dot_products_are_told_from_the_instruction_set() -> None:
    found = {name: devices.load(name).has_int8_dot for name in ("pi4", "pi5", "x86-vnni", "x86-no-vnni", "n100")}
    assert found == {"pi4": False, "pi5": True, "x86-vnni": True, "x86-no-vnni": False, "n100": True}


def test_a_whole_profile_is_read(tmp_path: Path) -> None:
    assert read(written(tmp_path, toml())).hardware.cores.value == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (toml('colour = "red"'), "unknown field `colour`"),
        (toml(cores='{ value = 4, kind = "vendor" }'), "missing required field `source`"),
        (toml(cores='{ value = 4, kind = "vendor", source = "" }'), "length >= 1"),
        (toml(cores='{ value = 4, kind = "guessed", source = "me" }'), "guessed"),
        (toml(cores='{ value = -4, kind = "vendor", source = "x" }'), "0 or above"),
        (toml(cores='{ value = inf, kind = "vendor", source = "x" }'), "finite"),
        (toml(cores="4"), "hardware.cores"),
        (toml(name="other"), "calls itself 'other'"),
        ("name = ", "not TOML"),
    ],
)
def test_what_is_wrong_with_a_profile_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Refused) as error:
        read(written(tmp_path, text))
    assert said in error.value.message


def test_an_unknown_device_lists_the_known() -> None:
    with pytest.raises(UsageError) as error:
        devices.load("pi9")
    assert all(name in error.value.remedy for name in (*devices.known(), "local"))


def test_the_folder_one_works_in_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "device_profiles").mkdir()
    written(tmp_path / "device_profiles", toml(name="pi4"), "pi4")
    monkeypatch.chdir(tmp_path)
    assert devices.load("pi4").title == "A board"
    assert devices.load("pi5").title == "Raspberry Pi 5"
    assert devices.load(str(tmp_path / "device_profiles" / "pi4.toml")).title == "A board"


def test_this_machine_tells_what_it_is_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(store, "SHIPPED", tmp_path)
    profile = devices.load("local")
    assert profile.name == this_machine().id
    assert profile.predictor == ""
    assert msgspec.convert(msgspec.to_builtins(profile), type(profile)) == profile
