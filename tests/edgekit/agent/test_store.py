"""What an agent keeps of bundles, and for how long."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from agent_fixtures import TOKEN

from edgekit.agent import store
from edgekit.agent.store import Store
from edgekit.agent.wire import Offer, OfferedFile
from edgekit.profiler.request import Request
from edgekit.profiler.where import Access
from edgekit_runtime.errors import Refused

pytest.importorskip("onnxruntime")
SHORT = Request(duration_s=0.05)
OPEN = Access(token=TOKEN)


def test_the_oldest_content_goes_when_room_is_needed(tmp_path: Path):
    kept = Store(tmp_path, most_bytes=10)

    def bring(letter: bytes) -> str:
        digest = hashlib.sha256(letter * 6).hexdigest()
        offer = Offer(name="x", bare=False, files=(OfferedFile(path="f", bytes=6, sha256=digest),))
        content, missing = kept.open(offer)
        for file in missing:
            kept.take(content, offer, file, lambda: letter * 6)
        kept.finish(content, offer)
        return content

    first = bring(b"a")
    second = bring(b"b")
    assert kept.path(second).is_dir()
    with pytest.raises(Refused):
        kept.path(first)


def test_what_a_lost_workstation_began_is_removed_after_a_while(tmp_path: Path, monkeypatch):
    kept = Store(tmp_path, most_bytes=100)
    offer = Offer(name="x", bare=False, files=(OfferedFile(path="f", bytes=6, sha256="0" * 64),))
    begun, _ = kept.open(offer)
    other = msgspec.structs.replace(offer, name="y")
    kept.open(other)
    assert (tmp_path / begun).is_dir()
    monkeypatch.setattr(store, "_ABANDONED_S", -1.0)
    kept.open(other)
    assert not (tmp_path / begun).exists()


def test_the_oldest_content_goes_when_the_disk_needs_the_room(tmp_path: Path, monkeypatch):
    kept = Store(tmp_path, most_bytes=1000)
    one, other = (
        Offer(
            name=name, bare=False, files=(OfferedFile(path="f", bytes=6, sha256=hashlib.sha256(b"x" * 6).hexdigest()),)
        )
        for name in "ab"
    )

    def free(self: Store) -> int:
        return store._SPARE_BYTES + 10 - sum(path.stat().st_size for path in tmp_path.rglob("f"))

    monkeypatch.setattr(Store, "_free", free)
    for offer in (one, other):
        content, missing = kept.open(offer)
        for file in missing:
            kept.take(content, offer, file, lambda: b"x" * 6)
        kept.finish(content, offer)
    assert [path.name for path in tmp_path.glob("*/*")] == ["b"]
    large = msgspec.structs.replace(one, files=(OfferedFile(path="f", bytes=20, sha256="0" * 64),))
    with pytest.raises(Refused, match=r"too little room: 0 MB are to come and 67 MB stay free for the profile, 67 MB"):
        kept.open(large)
