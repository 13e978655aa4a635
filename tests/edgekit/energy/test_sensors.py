"""Sensors from recorded trees of sysfs: no hardware is needed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit import energy
from edgekit.energy import hwmon, nvml, pi5, rapl
from edgekit.energy.meter import Unreadable
from edgekit.energy.sampled import Sampled, integrate

PMIC = """
3V7_WL_SW_A current(0)=0.10000000A
3V3_SYS_A current(1)=0.50000000A
VDD_CORE_A current(7)=2.00000000A
3V7_WL_SW_V volt(8)=3.70000000V
3V3_SYS_V volt(9)=3.30000000V
VDD_CORE_V volt(15)=0.80000000V
EXT5V_V volt(24)=5.15304000V
"""


def tree(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


def domain(number: str, name: str, uj: int, range_uj: int = 262_143_328_850) -> dict[str, object]:
    folder = f"sys/class/powercap/intel-rapl:{number}"
    return {f"{folder}/name": name, f"{folder}/energy_uj": uj, f"{folder}/max_energy_range_uj": range_uj}


def set_uj(root: Path, number: str, uj: int) -> None:
    (root / f"sys/class/powercap/intel-rapl:{number}/energy_uj").write_text(f"{uj}\n")


def test_rapl_counts_packages_and_their_memory_but_no_core_twice(tmp_path: Path) -> None:
    parts = (
        domain("0", "package-0", 0),
        domain("0:0", "core", 0),
        domain("0:1", "dram", 0),
        domain("1", "package-1", 0),
    )
    for part in parts:
        tree(tmp_path, part)
    assert [each.name for each in rapl.domains(tmp_path)] == ["package-0", "package-1", "dram"]


def test_rapl_takes_psys_alone_as_it_holds_the_packages(tmp_path: Path) -> None:
    for part in (domain("0", "package-0", 0), domain("0:0", "core", 0), domain("1", "psys", 0)):
        tree(tmp_path, part)
    assert [each.name for each in rapl.domains(tmp_path)] == ["psys"]


def test_rapl_reads_what_was_counted_between_start_and_stop(tmp_path: Path) -> None:
    tree(tmp_path, domain("0", "package-0", 1_000_000))
    meter = rapl.find(tmp_path)
    assert meter is not None
    meter.start()
    set_uj(tmp_path, "0", 3_500_000)
    reading = meter.stop()
    assert reading.joules == pytest.approx(2.5)
    assert "package-0" in reading.method


def test_rapl_goes_on_counting_over_a_wrap_and_over_several(tmp_path: Path) -> None:
    tree(tmp_path, domain("0", "package-0", 900, range_uj=1000))
    meter = rapl.find(tmp_path)
    assert meter is not None
    meter.start()
    for value in (100, 950, 50):  # 200, then 850, then 100 microjoules
        set_uj(tmp_path, "0", value)
        meter.take()
    assert meter.stop().joules * 1e6 == pytest.approx(200 + 850 + 100)


@given(st.lists(st.integers(0, 999), min_size=1, max_size=20), st.integers(0, 999))
def test_steps_below_a_round_add_up_whatever_wraps(steps: list[int], start: int) -> None:
    total, now = 0.0, start
    for step in steps:
        after = (now + step) % 1000
        total += rapl.difference_uj(now, after, 1000)
        now = after
    assert total == sum(steps)


def test_locked_counters_are_told_with_the_way_to_open_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, domain("0", "package-0", 0))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert energy.meter_for_this_machine(tmp_path) is None
    assert "chmod a+r" in energy.why_none(tmp_path)


def test_a_machine_without_sensors_has_no_meter_and_says_what_was_looked_for(tmp_path: Path) -> None:
    assert energy.meter_for_this_machine(tmp_path) is None
    assert "no energy sensor" in energy.why_none(tmp_path)


def test_a_jetson_is_measured_at_the_rail_of_the_whole_board(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon3"
    tree(
        tmp_path,
        {
            f"{chip}/name": "ina3221",
            f"{chip}/in1_label": "VDD_IN", f"{chip}/in1_input": 5000, f"{chip}/curr1_input": 800,
            f"{chip}/in2_label": "VDD_CPU_GPU_CV", f"{chip}/in2_input": 5000, f"{chip}/curr2_input": 200,
        },
    )  # fmt: skip
    assert [(rail.label, rail.read()) for rail in hwmon.rails(tmp_path)] == [("VDD_IN", 4.0), ("VDD_CPU_GPU_CV", 1.0)]
    meter = energy.meter_for_this_machine(tmp_path)
    assert isinstance(meter, Sampled)
    meter.start()
    reading = meter.stop()
    assert reading.watts == pytest.approx(4.0)
    assert reading.method == "ina3221 VDD_IN"
    assert reading.covers == "whole board"


def test_a_sensor_that_tells_power_is_taken_as_it_is(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon0"
    tree(tmp_path, {f"{chip}/name": "ina226", f"{chip}/power1_input": 4_150_000})
    assert [rail.read() for rail in hwmon.rails(tmp_path)] == [pytest.approx(4.15)]
    assert hwmon.find(tmp_path) is not None


def test_rails_that_may_be_anything_are_not_added_up(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon0"
    tree(tmp_path, {f"{chip}/name": "ina3221", **{f"{chip}/in{n}_input": 5000 for n in (1, 2)}})
    tree(tmp_path, {f"{chip}/curr{n}_input": 100 for n in (1, 2)})
    assert len(hwmon.rails(tmp_path)) == 2
    assert hwmon.find(tmp_path) is None


def test_temperature_chips_are_no_power_sensors(tmp_path: Path) -> None:
    tree(tmp_path, {"sys/class/hwmon/hwmon0/name": "coretemp", "sys/class/hwmon/hwmon0/in1_input": 900})
    assert hwmon.rails(tmp_path) == []


def test_the_pmic_formula_takes_rails_with_current_and_voltage() -> None:
    rails = 0.1 * 3.7 + 0.5 * 3.3 + 2.0 * 0.8
    assert pi5.parse_w(PMIC) == pytest.approx(1.1451 * rails + 0.5879)


def test_a_pi_5_is_measured_by_its_pmic_and_a_pi_4_has_none(tmp_path: Path) -> None:
    tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0"})
    meter = pi5.find(tmp_path, lambda: PMIC)
    assert meter is not None
    meter.start()
    assert meter.stop().watts == pytest.approx(pi5.parse_w(PMIC))
    tree(tmp_path, {"proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4"})
    assert pi5.find(tmp_path, lambda: PMIC) is None


def test_words_that_name_no_rail_are_unreadable() -> None:
    with pytest.raises(Unreadable):
        pi5.parse_w("VCHI initialization failed")


def test_power_is_summed_by_trapezoids() -> None:
    assert integrate([(0.0, 2.0), (1.0, 4.0), (3.0, 4.0)]) == pytest.approx(3.0 + 8.0)
    with pytest.raises(Unreadable):
        integrate([(0.0, 2.0)])


def test_a_sensor_that_dies_meanwhile_is_told_not_guessed() -> None:
    answers = iter([3.0])

    def read() -> float:
        try:
            return next(answers)
        except StopIteration:
            raise Unreadable("the sensor is gone") from None

    meter = Sampled(read, method="m", source="s", covers="c", interval_s=0.001)
    meter.start()
    meter._reader.join(timeout=5)
    with pytest.raises(Unreadable, match="gone"):
        meter.stop()


class Card:
    """What `pynvml` looks like to the meter."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, cards: int = 1, counter: bool = True) -> None:
        self.cards, self.counter, self.mj = cards, counter, 1000.0

    def nvmlInit(self) -> None:
        if not self.cards:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, card: int) -> bytes:
        return b"Tesla T4"

    def nvmlDeviceGetTotalEnergyConsumption(self, card: int) -> float:
        if not self.counter:
            raise self.NVMLError("not supported")
        return self.mj

    def nvmlDeviceGetPowerUsage(self, card: int) -> int:
        return 70_000


def test_a_card_with_a_counter_is_read_at_both_ends() -> None:
    card = Card()
    meter = nvml.find(card)
    assert meter is not None
    meter.start()
    card.mj += 2500
    reading = meter.stop()
    assert reading.joules == pytest.approx(2.5)
    assert "Tesla T4" in reading.method


def test_an_old_card_is_sampled_and_no_card_is_no_meter() -> None:
    meter = nvml.find(Card(counter=False))
    assert isinstance(meter, Sampled)
    meter.start()
    assert meter.stop().watts == pytest.approx(70.0)
    assert nvml.find(Card(cards=0)) is None
