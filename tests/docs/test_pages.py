"""The pages say what the code says: schemas, settings, options, links, error codes."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from edgekit_runtime import errors, manifest, preprocess
from edgekit_runtime.preprocess import (
    AudioInput,
    ByteInput,
    ImageInput,
    NgramInput,
    TensorInput,
    TextInput,
    parse_settings,
)

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_schemas_are_those_that_the_types_generate() -> None:
    made = generator().schemas()
    there = [*DOCS.glob("*.schema.json"), *(DOCS.parent / "device_profiles").glob("*.schema.json")]
    assert {(DOCS / name).resolve() for name in made} == {path.resolve() for path in there}
    for name, data in made.items():
        assert (DOCS / name).read_bytes() == data, f"{name} is stale: run python docs/generate.py"


def test_the_generator_writes_exactly_those_files(tmp_path: Path) -> None:
    module = generator()
    for folder in ("docs", "device_profiles"):
        (tmp_path / folder).mkdir()
    module.__file__ = str(tmp_path / "docs" / "generate.py")
    module.main()
    written = {path.resolve(): path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert written == {(tmp_path / "docs" / name).resolve(): data for name, data in module.schemas().items()}


@pytest.mark.parametrize("number", range(8))
def test_every_example_of_the_preprocess_page_is_accepted(number: int) -> None:
    examples = re.findall(r"^```toml\n(.*?)^```$", read("preprocess.md"), re.MULTILINE | re.DOTALL)
    assert len(examples) == 7, "one example a kind, and one with several inputs"
    kinds: set[type] = set()
    if number < len(examples):
        kinds = {type(rule) for rule in parse_settings(examples[number]).inputs.values()}
        assert kinds
    else:
        for example in examples:
            kinds |= {type(rule) for rule in parse_settings(example).inputs.values()}
        assert kinds == {ImageInput, AudioInput, TextInput, NgramInput, ByteInput, TensorInput}


@pytest.mark.parametrize("kind", [ImageInput, AudioInput, TextInput, NgramInput, ByteInput])
def test_every_key_of_preprocess_toml_is_on_its_page(kind: type[msgspec.Struct]) -> None:
    section = read("preprocess.md").split(f"## {kind.__struct_config__.tag}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(kind.__struct_fields__)


@pytest.mark.parametrize("kind", [manifest.Manifest, manifest.Graph])
def test_every_field_of_the_manifest_is_on_the_bundle_page(kind: type[msgspec.Struct]) -> None:
    page = read("bundle.md")
    missing = [name for name in kind.__struct_fields__ if f"`{name}`" not in page]
    assert missing == []


def test_every_scheme_of_a_recipe_is_on_the_bundle_page() -> None:
    from typing import get_args

    from edgekit_converters.recipe.types import Scheme

    missing = [scheme for scheme in get_args(Scheme) if f"| `{scheme}` |" not in read("bundle.md")]
    assert missing == []


def test_every_option_of_convert_is_on_its_page_and_no_other() -> None:
    import inspect

    from edgekit.cli.commands import convert

    declared = {
        f"--{name.replace('_', '-')}"
        for name in inspect.signature(convert.command).parameters
        if name not in ("source", "out", "evaluation", "formats")
    } | {"--eval", "--format", "--output"}
    written = set(re.findall(r"^\| `(?:-o, )?(--[\w-]+)", read("convert.md"), re.MULTILINE))
    assert written == declared


def test_every_metric_is_on_the_convert_page() -> None:
    from edgekit_converters.verify.metrics import METRICS

    assert set(re.findall(r"^\| `(\w+)` \| (?:higher|lower)", read("convert.md"), re.MULTILINE)) == set(METRICS)


def tree(kind: type[errors.EdgekitError]) -> set[type[errors.EdgekitError]]:
    return {kind}.union(*(tree(child) for child in kind.__subclasses__() if child.__module__ == errors.__name__))


def test_every_error_is_on_its_page_with_its_exit_code_and_kind() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d+ \| `\w+`) \|", read("errors.md"), re.MULTILINE))
    wanted = {kind.__name__: f"{kind.exit_code} | `{kind.kind}`" for kind in tree(errors.EdgekitError)}
    del wanted["EdgekitError"]
    assert rows == wanted


def test_every_engine_is_on_the_runtime_page_with_its_extra() -> None:
    from edgekit_runtime.engines import TABLE

    page = read("runtime.md")
    for name, (_, _, _, formats, _) in TABLE.items():
        assert re.search(rf"^\| `{name}` \| {', '.join(formats)} \|", page, re.MULTILINE), name


def test_every_public_name_of_the_runtime_is_on_its_page() -> None:
    import edgekit_runtime

    page = read("runtime.md") + read("errors.md")
    missing = [name for name in edgekit_runtime.__all__ if not re.search(rf"`(?:er\.)?{name}\b", page)]
    assert missing == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(DOCS)} -> {target}")
    assert broken == []


def test_places_in_the_code_that_decisions_name_exist() -> None:
    roots = (DOCS.parent, DOCS.parent / "runtime", DOCS.parent / "converters")
    gone = []
    for page in (DOCS / "decisions").glob("*.md"):
        for place in re.findall(r"`([\w/]+/[\w/]+\.py)`", page.read_text(encoding="utf-8")):
            if not any((root / place).is_file() for root in roots):
                gone.append(f"{page.name}: {place}")
    assert gone == []


def test_decisions_are_numbered_without_gaps_and_say_what_was_rejected() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert [h for h in ("## Context", "## Choice", "## Rejected") if h not in text] == [], page.name


def test_the_default_of_every_key_of_preprocess_toml_is_the_one_written() -> None:
    section = read("preprocess.md").split("## image")[1].split("## audio")[0]
    written = dict(re.findall(r"^\| `(\w+)` \|.*\| `?([\w/]+)`? \|$", section, re.MULTILINE))
    rule = preprocess.ImageInput(size=(1, 1))
    assert rule.scale == 1 / 255
    assert written["scale"] == "1/255"
    for key in ("resize", "interpolation", "crop", "color", "layout", "dtype"):
        assert written[key] == getattr(rule, key)


def test_every_option_on_the_profile_page_exists() -> None:
    import importlib
    import inspect

    declared = {"--calibrate"}
    for name in ("profile", "compare", "report", "agent"):
        command = importlib.import_module(f"edgekit.cli.commands.{name}").command
        declared |= {f"--{option.replace('_', '-')}" for option in inspect.signature(command).parameters}
    page = re.sub(r"^openssl.*?(?=^edgekit)", "", read("profile.md"), flags=re.MULTILINE | re.DOTALL)
    written = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page))
    assert len(written) >= 12
    assert written <= declared


def test_the_percentile_minima_on_the_profile_page_are_those_of_the_code() -> None:
    from edgekit.profiler.statistics import MINIMA

    words = re.search(r"p50 from (\d+) samples, p90 from (\d+), p99 from\s+(\d+)", read("profile.md"))
    assert words is not None
    assert [int(number) for number in words.groups()] == [MINIMA[name] for name in ("p50", "p90", "p99")]
