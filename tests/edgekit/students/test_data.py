from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.students import data
from edgekit.students.vocabulary import Vocabulary, build_vocabulary, load_vocabulary
from edgekit_runtime.errors import Refused, UsageError


def test_a_missing_folder_says_which_variable_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(data.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="EDGEKIT_DATA"):
        data.folder()
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    with pytest.raises(UsageError, match=r"dev\.tsv is missing"):
        data.sst2("dev")


def test_small_files_are_read_as_they_stand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    for name in ("sst2", "trec", "mrpc", "wnut17", "ud_english_ewt"):
        (tmp_path / "text" / name).mkdir(parents=True)
    text = tmp_path / "text"
    (text / "sst2/dev.tsv").write_text("a fine\u2028film\t1\nno\t0\n", encoding="utf-8")
    (text / "trec/TREC.train.raw.txt").write_bytes("HUM:ind Who is Andr\xe9 ?\nNUM:date When ?\n".encode("latin-1"))
    (text / "mrpc/msr_paraphrase_train.txt").write_text("\ufeffQuality\t1\t2\tA\tB\n1\t7\t8\tx\ty\n", encoding="utf-8")
    (text / "wnut17/emerging.dev.conll").write_text("In\tO\nRome\tB-location\n\t\n#\tO\n", encoding="utf-8")
    ewt = "# text = It's\n1-2\tIt's\t_\t_\n1\tIt\tit\tPRON\n2\t's\tbe\tAUX\n2.1\tx\tx\tX\n"
    (text / "ud_english_ewt/en_ewt-ud-dev.conllu").write_text(ewt, encoding="utf-8")

    assert data.sst2("dev").texts == ("a fine\u2028film", "no")
    np.testing.assert_array_equal(data.sst2("dev").labels, [1, 0])
    assert data.trec().texts[0] == "Who is Andr\xe9 ?"
    assert [data.trec().names[label] for label in data.trec().labels] == ["HUM", "NUM"]
    assert (data.mrpc().first, data.mrpc().second, data.mrpc().labels.tolist()) == (("x",), ("y",), [1])
    assert data.wnut17("dev").words == (("In", "Rome"), ("#",))
    assert data.wnut17("dev").names == ("B-location", "O")
    assert data.ewt().tags == (("PRON", "AUX"),)


def test_the_real_sets_are_whole(public_data: None) -> None:
    assert (len(data.sst2("train").texts), len(data.sst2("dev").texts)) == (6920, 872)
    assert np.bincount(data.ag_news().labels).tolist() == [1900] * 4
    assert (len(data.trec().texts), len(data.mrpc().first)) == (5452, 4076)
    assert len(data.wnut17("train").names) == 13
    assert len(data.ewt().names) == 17
    assert data.cifar10("eval").pixels.shape == (500, 32, 32, 3)
    assert data.mnist().pixels.shape == (12_000, 28, 28, 1)


def test_a_vocabulary_ranks_by_count_then_alphabet_and_survives_its_file(tmp_path: Path) -> None:
    built = build_vocabulary([["b", "a", "c"], ["c"], ["d"]], largest=5)
    assert built.words == ("[PAD]", "[UNK]", "c", "a", "b")
    built.save(tmp_path / "vocab.txt")
    assert load_vocabulary(tmp_path / "vocab.txt") == built
    np.testing.assert_array_equal(built.encode([["c", "d"], ["a", "b", "c", "c"]], 3), [[2, 1, 0], [3, 4, 2]])


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=6))
def test_only_unknown_words_are_one_and_only_padding_is_zero(sentences: list[list[str]]) -> None:
    vocabulary = build_vocabulary(sentences, largest=6)
    for sentence, ids in zip(sentences, vocabulary.encode(sentences, 8), strict=True):
        assert np.count_nonzero(ids) == len(sentence)
        for word, found in zip(sentence, ids, strict=False):
            assert vocabulary.words[found] == word if word in vocabulary.words else found == 1


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Vocabulary(("a", "b"))
    (tmp_path / "vocab.txt").write_text("one\ntwo\n")
    with pytest.raises(Refused, match="not a vocabulary"):
        load_vocabulary(tmp_path / "vocab.txt")
