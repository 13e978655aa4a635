"""Row 15: a character encoder-decoder that writes words in another script (EPIK, 2211.14920).

chars [B, T] -> Embedding 128 + position -> 2 encoder layers -> keys and values of both decoder layers, computed once
token [B], cache -> Embedding 128 + position -> 2 decoder layers -> scores [B, 40], one call a character (greedy)

Width 128, 4 heads*, feed-forward 256*, pre-norm, words of up to 24 characters, answers of up to 28. The decoder keeps
what it has computed in a cache of fixed size and writes each row at the place that `step` tells, so that one step costs
the same wherever it stands. Padding (0) is masked out. The scripts are made up: `transliterate` is the rule.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from edgekit.students.sampling import Arrays, check_size, seeded, spread_answers

LONGEST, LIMIT = 24, 28
# 0 padding, 1 begin, 2 end (answers only), then letters.
BEGIN, END, FIRST = 1, 2, 3
SOURCE = "abcdefghijklmnopqrstuvwxyz"
MASKED = -10_000.0

# Longest first; "|" before or after means the word's edge, a letter in brackets is looked at and not taken.
RULES: tuple[tuple[str, str], ...] = (
    ("ch", "ჩ"), ("sh", "შ"), ("th", "თ"), ("qu", "ქვ"), ("aa", "ჱ"), ("ee", "ჲ"), ("ai", "ჳ"), ("ou", "ჴ"),
    ("c(e)", "ც"), ("c(i)", "ძ"), ("g(e)", "ჟ"), ("h|", ""), ("e|", "ჰ"), ("is|", "ჵ"), ("x", "კს"), ("y", "ი"),
    ("a", "ა"), ("b", "ბ"), ("c", "კ"), ("d", "დ"), ("e", "ე"), ("f", "ფ"), ("g", "გ"), ("h", "ხ"), ("i", "ი"),
    ("j", "ჯ"), ("k", "კ"), ("l", "ლ"), ("m", "მ"), ("n", "ნ"), ("o", "ო"), ("p", "პ"), ("q", "ჸ"), ("r", "რ"),
    ("s", "ს"), ("t", "ტ"), ("u", "უ"), ("v", "ვ"), ("w", "ღ"), ("z", "ზ"),
)  # fmt: skip
TARGET = "".join(sorted({letter for _, letters in RULES for letter in letters}))


class Attention(nn.Module):
    """Scaled dot-product attention; keys and values are given, so that they can be kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor, kept: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """X [B, N, width], keys and values of M places [B, M, 2 * width], bias [B, 1, 1, M] to [B, N, width]."""
        width = x.shape[2]
        depth = width // self.heads

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.reshape(y.shape[0], y.shape[1], self.heads, depth).transpose(1, 2)

        scores = split(self.query(x)) @ split(kept[..., :width]).transpose(2, 3) * (1.0 / math.sqrt(depth))
        mixed = torch.softmax(scores + bias, dim=-1) @ split(kept[..., width:])
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class Feed(nn.Module):
    """Pre-norm feed-forward with a residual."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = nn.LayerNorm(width), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, N, width] to the same."""
        return x + self.narrow(torch.relu(self.wide(self.norm(x))))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm, self.attention, self.feed = nn.LayerNorm(width), Attention(width, heads), Feed(width, inner)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """[B, T, width] and bias [B, 1, 1, T] to [B, T, width]."""
        y = self.norm(x)
        return self.feed(x + self.attention(y, self.attention.kv(y), bias))


class DecoderLayer(nn.Module):
    """Attention to what was written, attention to what was read, feed-forward."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.cross_norm, self.cross = nn.LayerNorm(width), Attention(width, heads)
        self.feed = Feed(width, inner)


class Transliterator(nn.Module):
    """See the module's docstring. `encode` and `decode_step` become the two graphs.

    Args:
        width: Of all vectors.
        heads: Of attention.
        inner: Of the feed-forward.
        layers: Of the encoder, and of the decoder.
    """

    begin, end, limit = BEGIN, END, LIMIT

    def __init__(self, width: int = 128, heads: int = 4, inner: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.width = width
        self.chars = nn.Embedding(FIRST + len(SOURCE), width, padding_idx=0)
        self.letters = nn.Embedding(FIRST + len(TARGET), width, padding_idx=0)
        self.read_places = nn.Parameter(0.3 * torch.randn(LONGEST, width))
        self.written_places = nn.Parameter(0.3 * torch.randn(LIMIT, width))
        self.encoder = nn.ModuleList(EncoderLayer(width, heads, inner) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, inner) for _ in range(layers))
        self.read_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, FIRST + len(TARGET))

    def encode(self, chars: torch.Tensor) -> dict[str, torch.Tensor]:
        """Chars [B, T] int64 to memory [B, T, layers * 2 * width]: keys and values for each decoder layer."""
        x = self.chars(chars) + self.read_places[: chars.shape[1]]
        bias = _bias(chars != 0)
        for layer in self.encoder:
            x = layer(x, bias)
        x = self.read_norm(x)
        return {"memory": torch.cat([layer.cross.kv(x) for layer in self.decoder], dim=-1)}

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        """An empty cache [batch, limit, layers * 2 * width] and the number of tokens written [batch]."""
        cache = torch.zeros(batch, LIMIT, len(self.decoder) * 2 * self.width)
        return {"cache": cache, "step": torch.zeros(batch, dtype=torch.int64)}

    def decode_step(
        self, token: torch.Tensor, chars: torch.Tensor, memory: torch.Tensor, cache: torch.Tensor, step: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """One character: the last token [B] in, scores [B, V] of the next out, cache and step handed on."""
        here = (torch.arange(LIMIT, device=token.device)[None, :] == step[:, None]).to(memory.dtype)
        written = _bias(torch.arange(LIMIT, device=token.device)[None, :] <= step[:, None])
        x = (self.letters(token) + here @ self.written_places)[:, None, :]
        kept, read = [], _bias(chars != 0)
        for layer, old, crossing in zip(
            self.decoder, cache.split(2 * self.width, 2), memory.split(2 * self.width, 2), strict=True
        ):
            y = layer.norm(x)
            new = old + here[:, :, None] * layer.attention.kv(y)
            x = x + layer.attention(y, new, written)
            x = layer.feed(x + layer.cross(layer.cross_norm(x), crossing, read))
            kept.append(new)
        scores = self.head(self.norm(x)[:, 0])
        return {"scores": scores, "next_cache": torch.cat(kept, dim=-1), "next_step": step + 1}

    def teach(self, chars: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
        """Chars [B, T] and the right answer's tokens so far [B, L] to scores of every next one [B, L, V]; training."""
        memory = self.encode(chars)["memory"]
        length = written.shape[1]
        x = self.letters(written) + self.written_places[:length]
        past = (1.0 - torch.ones(length, length, device=x.device).tril())[None, None] * MASKED
        for layer, crossing in zip(self.decoder, memory.split(2 * self.width, 2), strict=True):
            y = layer.norm(x)
            x = x + layer.attention(y, layer.attention.kv(y), past)
            x = layer.feed(x + layer.cross(layer.cross_norm(x), crossing, _bias(chars != 0)))
        return self.head(self.norm(x))

    def forward(self, chars: torch.Tensor) -> dict[str, torch.Tensor]:
        """Chars [B, T] to tokens [B, limit], 0 after the end: what the runtime's loop does, in torch."""
        memory = self.encode(chars)["memory"]
        state = self.initial_state(len(chars))
        token, tokens = torch.full((len(chars),), BEGIN), []
        ended = torch.zeros(len(chars), dtype=torch.bool)
        for _ in range(LIMIT):
            told = self.decode_step(token, chars, memory, **state)
            token = told["scores"].argmax(-1)
            ended = ended | (token == END)
            tokens.append(torch.where(ended, 0, token))
            state = {name: told[f"next_{name}"] for name in state}
        return {"tokens": torch.stack(tokens, dim=1)}


def _bias(seen: torch.Tensor) -> torch.Tensor:
    """What attention may look at [B, M] as a term of the scores [B, 1, 1, M]."""
    return (1.0 - seen.to(torch.float32))[:, None, None, :] * MASKED


def build(size: str = "full", seed: int = 0) -> Transliterator:
    """Width 128 (`tiny`: 64), seeded weights."""
    check_size(size)
    with seeded(seed):
        student = Transliterator() if size == "full" else Transliterator(width=64, heads=2, inner=128)
    _spread(student, seed)
    return student.eval()


def _spread(student: Transliterator, seed: int) -> None:
    class Taught(nn.Module):
        def forward(self, chars: torch.Tensor, written: torch.Tensor) -> torch.Tensor:
            return student.teach(chars, written)

    words = example(64, 12, seed=seed)["chars"]
    spread_answers(Taught(), {"output": student.head}, {"chars": words, "written": written(words)[:, :LIMIT]})


def example(batch: int = 2, length: int = 16, size: str = "full", seed: int = 0) -> Arrays:
    """Random words: `chars` [batch, length] int64, padded at the end; longer than 24 is cut."""
    made = words(batch, seed, longest=min(length, LONGEST))
    return {"chars": np.pad(made, ((0, 0), (0, min(length, LONGEST) - made.shape[1])))}


def words(count: int, seed: int = 0, longest: int = LONGEST) -> np.ndarray:
    """Made-up words of syllables, [count, longest] int64, the first as long as can be."""
    rng = np.random.default_rng([seed, 3])
    onsets = [*"bcdfghklmnprstvwz", "ch", "sh", "th", "st", "pr", "ll", "nn", "qu", "x", "y", "j", ""]
    rhymes = [*"aeiouaeiou", "aa", "ee", "ai", "ou", "an", "er", "ah", "is"]
    found = np.zeros((count, longest), np.int64)
    for number, row in enumerate(found):
        size = longest if number == 0 else int(rng.integers(min(2, longest), longest + 1))
        text = ""
        while len(text) < size:
            text += onsets[rng.integers(len(onsets))] + rhymes[rng.integers(len(rhymes))]
        row[:size] = [FIRST + SOURCE.index(letter) for letter in text[:size]]
    return found


def transliterate(word: str) -> str:
    """The made-up script: digraphs, letters that depend on the next, silent ends, doubled consonants once."""
    answer, place = "", 0
    while place < len(word):
        if place and word[place] == word[place - 1] and word[place] in "lnst":
            place += 1
            continue
        for pattern, letters in RULES:
            taken = pattern.split("(")[0].rstrip("|")
            ahead = pattern[len(taken) + 1 : -1] if "(" in pattern else ""
            last = not pattern.endswith("|") or place + len(taken) == len(word)
            if last and word.startswith(taken + ahead, place):
                answer += letters
                place += len(taken)
                break
    return answer


def written(chars: np.ndarray) -> np.ndarray:
    """The right answers as the decoder reads them in training: begin, letters, 0; [N, limit + 1] int64."""
    found = np.zeros((len(chars), LIMIT + 1), np.int64)
    found[:, 0] = BEGIN
    for row, codes in zip(found, chars, strict=True):
        letters = transliterate("".join(SOURCE[code - FIRST] for code in codes if code))[: LIMIT - 1]
        row[1 : 1 + len(letters)] = [FIRST + TARGET.index(letter) for letter in letters]
    return found
