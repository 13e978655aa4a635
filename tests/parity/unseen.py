"""Students that no list names, written as a user writes torch code; each mixes pieces of the reference students."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgekit_converters.captured import Arrays

WORDS = 200


class BiLstmAttention(nn.Module):
    """BiLSTM whose words are pooled by attention; padding (id 0) gets no share."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, 32, batch_first=True, bidirectional=True)
        self.score = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 1))
        self.head = nn.Linear(64, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        states, _ = self.lstm(self.table(ids))
        scores = self.score(states).squeeze(-1).masked_fill(ids == 0, -1e4)
        return self.head((torch.softmax(scores, dim=1).unsqueeze(-1) * states).sum(dim=1))


class UNet1d(nn.Module):
    """Two steps down by strided convolutions, two up by interpolation to the skip's own length; a value a sample."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Conv1d(4, width, 5, padding=2), nn.BatchNorm1d(width), nn.ReLU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width * 2**n, width * 2 ** (n + 1), 5, stride=2, padding=2), nn.ReLU())
            for n in range(2)
        )
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv1d(width * 2**n * 3, width * 2**n, 3, padding=1), nn.ReLU()) for n in (1, 0)
        )
        self.head = nn.Conv1d(width, 2, 1)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        x = self.start(signal)
        skips = []
        for step in self.down:
            skips.append(x)
            x = step(x)
        for step in self.up:
            skip = skips.pop()
            x = step(torch.cat([functional.interpolate(x, size=skip.shape[-1], mode="nearest"), skip], dim=1))
        return self.head(x)


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al., 2105.01601): patches, an MLP over places, an MLP over channels."""

    def __init__(self, width: int = 64, places: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.places = nn.ModuleList(self._mlp(places, 32) for _ in range(2))
        self.channels = nn.ModuleList(self._mlp(width, 64) for _ in range(2))
        self.head = nn.Linear(width, 5)

    @staticmethod
    def _mlp(size: int, inner: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(size, inner), nn.GELU(), nn.Linear(inner, size))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.patches(image).flatten(2).transpose(1, 2)
        for n in range(2):
            x = x + self.places[n](self.norms[2 * n](x).transpose(1, 2)).transpose(1, 2)
            x = x + self.channels[n](self.norms[2 * n + 1](x))
        return self.head(self.norms[4](x).mean(dim=1))


class SpeechCtc(nn.Module):
    """Convolutions over a spectrogram, a bidirectional GRU, and log-probabilities of symbols for CTC."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=(1, 2), padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=(1, 2), padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        )  # fmt: skip
        self.gru = nn.GRU(8 * 5, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 12)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        x = self.conv(mel.unsqueeze(1))
        x = x.permute(0, 2, 1, 3).flatten(2)
        return functional.log_softmax(self.head(self.gru(x)[0]), dim=-1)


class CausalDecoder(nn.Module):
    """A language model of decoder blocks with torch's own attention and a causal mask."""

    def __init__(self, width: int = 64, longest: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, width)
        self.place = nn.Embedding(longest, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.feed = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)) for _ in range(2)
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        batch, length = ids.shape
        x = self.table(ids) + self.place(torch.arange(length, device=ids.device))
        for n in range(2):
            q, k, v = (
                part.view(batch, length, 4, -1).transpose(1, 2)
                for part in self.qkv[n](self.norms[2 * n](x)).chunk(3, dim=-1)
            )
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out[n](y.transpose(1, 2).flatten(2))
            x = x + self.feed[n](self.norms[2 * n + 1](x))
        return self.norms[4](x) @ self.table.weight.T


class ConvNext(nn.Module):
    """ConvNeXt blocks (Liu et al., 2201.03545): depthwise 7x7, LayerNorm with channels last, a learnt scale."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, stride=4)
        self.deep = nn.ModuleList(nn.Conv2d(width, width, 7, padding=3, groups=width) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.wide = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(2))
        self.gammas = nn.ParameterList(nn.Parameter(torch.full((width,), 0.5)) for _ in range(2))
        self.head = nn.Linear(width, 6)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.stem(image)
        for n in range(2):
            y = self.norms[n](self.deep[n](x).permute(0, 2, 3, 1))
            y = self.gammas[n] * self.narrow[n](functional.gelu(self.wide[n](y)))
            x = x + y.permute(0, 3, 1, 2)
        return self.head(self.norms[2](x.mean(dim=(-2, -1))))


class ExciteResidual(nn.Module):
    """Residual blocks on a sensor's signal, each weighed by squeeze and excitation; length is free."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv1d(4, width, 3, padding=1)
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 3, padding=1, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
                nn.Conv1d(width, width, 3, padding=1, bias=False), nn.BatchNorm1d(width),
            )
            for _ in range(2)
        )  # fmt: skip
        self.excite = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, width), nn.Sigmoid()) for _ in range(2)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(signal))
        for conv, excite in zip(self.convs, self.excite, strict=True):
            y = conv(x)
            x = torch.relu(x + y * excite(y.mean(dim=2)).unsqueeze(-1))
        return self.head(functional.adaptive_avg_pool1d(x, 1).flatten(1))


class LinformerScore(nn.Module):
    """A score of a text: attention whose keys are projected to eight places (Wang et al., 2006.04768), pooled by it."""

    def __init__(self, width: int = 64, longest: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, width, padding_idx=0)
        self.project = nn.Parameter(torch.randn(8, longest) / 4)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Linear(width, 1)
        self.head = nn.Linear(width, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        project = self.project[:, : ids.shape[1]]
        # The biases would bring padding back in: rows of padding are zero only before the layer adds its own.
        real = (ids != 0).unsqueeze(-1)
        keys, values = project @ (self.key(x) * real), project @ (self.value(x) * real)
        x = self.norm(x + torch.softmax(self.query(x) @ keys.transpose(1, 2) / 8, dim=-1) @ values)
        share = torch.softmax(self.pool(x).masked_fill(~real, -1e4), dim=1)
        return self.head((x * share).sum(dim=1)).squeeze(-1)


class CrossAttention(nn.Module):
    """Frames ask a text: torch's MultiheadAttention over two inputs of unlike length, padding is masked."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.frames = nn.Linear(10, width)
        self.table = nn.Embedding(WORDS, width, padding_idx=0)
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4)

    def forward(self, frames: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        x, words = self.frames(frames), self.table(ids)
        seen, _ = self.attend(x, words, words, key_padding_mask=ids == 0, need_weights=False)
        return self.head(self.norm(x + seen).amax(dim=1))


class StockEncoder(nn.Module):
    """torch's own TransformerEncoder with a padding mask, and the mean of what is no padding."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, width, padding_idx=0)
        layer = nn.TransformerEncoderLayer(width, 4, 128, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        padding = ids == 0
        x = self.encoder(self.table(ids), src_key_padding_mask=padding)
        real = (~padding).unsqueeze(-1).to(x.dtype)
        return self.head((x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1))


class CnnLstmVideo(nn.Module):
    """A small CNN on every frame of a clip, an LSTM over its answers, and the last state."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Hardswish(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        batch, steps = clip.shape[:2]
        x = self.cnn(clip.flatten(0, 1)).view(batch, steps, 16)
        return self.head(self.lstm(x)[1][0][-1])


class BagAndConv(nn.Module):
    """Hashed n-grams in an EmbeddingBag beside a gated convolution over the same words."""

    def __init__(self) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(WORDS, 32, mode="mean", padding_idx=0)
        self.table = nn.Embedding(WORDS, 32, padding_idx=0)
        self.conv = nn.Conv1d(32, 64, 3, padding=1)
        self.hidden = nn.Linear(64, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        gated = functional.glu(self.conv(self.table(ids).transpose(1, 2)), dim=1).amax(dim=2)
        return self.head(functional.gelu(self.hidden(torch.cat([self.bag(ids), gated], dim=1))))


def words(batch: int, length: int, seed: int) -> Arrays:
    """`ids` int64 [batch, length], without padding."""
    return {"ids": np.random.default_rng(seed).integers(1, WORDS, (batch, length))}


def signal(batch: int, length: int, seed: int) -> Arrays:
    """`signal` float32 [batch, 4, length]: waves of a sensor with a little noise."""
    rng = np.random.default_rng(seed)
    speed, phase = rng.uniform(0.3, 1.5, (batch, 4, 1)), rng.uniform(0, 6.3, (batch, 4, 1))
    waves = np.sin(speed * np.arange(length) + phase) + 0.1 * rng.standard_normal((batch, 4, length))
    return {"signal": waves.astype(np.float32)}


def image(batch: int, length: int, seed: int) -> Arrays:
    """`image` float32 [batch, 3, 16, 16], coarse spots; `length` says nothing here."""
    coarse = np.random.default_rng(seed).standard_normal((batch, 3, 4, 4)).astype(np.float32)
    return {"image": coarse.repeat(4, axis=2).repeat(4, axis=3)}


def spectrogram(batch: int, length: int, seed: int) -> Arrays:
    """`mel` float32 [batch, length, 20]."""
    return {"mel": np.random.default_rng(seed).standard_normal((batch, length, 20)).astype(np.float32)}


def frames_and_words(batch: int, length: int, seed: int) -> Arrays:
    """`frames` float32 [batch, length, 10] and `ids` int64 [batch, length // 2 + 3]."""
    frames = np.random.default_rng(seed).standard_normal((batch, length, 10)).astype(np.float32)
    return {"frames": frames, **words(batch, length // 2 + 3, seed)}


def clip(batch: int, length: int, seed: int) -> Arrays:
    """`clip` float32 [batch, length, 3, 16, 16]."""
    made = np.stack([image(length, 0, seed * 100 + row)["image"] for row in range(batch)])
    return {"clip": made}


@dataclasses.dataclass(frozen=True)
class Unseen:
    """One student and what it takes.

    Attributes:
        module: Its class.
        make: Inputs from batch, length, seed.
        dynamic: As for `edgekit convert --dynamic`.
        lengths: Of the calibration samples, in turn; the first is the example's.
        padded: The input whose zeros at the end change no answer; empty where the student promises no such thing.
        least_db: SQNR that its int8 graph must reach: widths of 32 leave a few per cent of noise, narrow feature maps
            with one scale more.
    """

    module: Callable[[], nn.Module]
    make: Callable[[int, int, int], Arrays]
    dynamic: Sequence[str]
    padded: str = ""
    lengths: Sequence[int] = (12, 8)
    least_db: float = 25.0


_TEXT = ("ids:0=B:1-8", "ids:1=T:4-16")
_RUNGS = ("ids:0=B:1-8", "ids:1=T:4-32")  # two rungs in TFLite
_SIGNAL = ("signal:0=B:1-8", "signal:2=T:8-32")
_TWO = ("frames:0=B:1-8", "ids:0=B", "frames:1=T:4-16", "ids:1=S:4-16")

STUDENTS: dict[str, Unseen] = {
    "bilstm_attention": Unseen(BiLstmAttention, words, _TEXT),
    "unet1d": Unseen(UNet1d, signal, _SIGNAL),
    "mixer": Unseen(Mixer, image, ("image:0=B:1-8",)),
    "speech_ctc": Unseen(SpeechCtc, spectrogram, ("mel:0=B:1-8", "mel:1=T:4-16")),
    "causal_decoder": Unseen(CausalDecoder, words, _TEXT),
    "convnext": Unseen(ConvNext, image, ("image:0=B:1-8",)),
    "excite_residual": Unseen(ExciteResidual, signal, _SIGNAL),
    "linformer_score": Unseen(LinformerScore, words, _RUNGS, "ids", (12, 8, 20)),
    "cross_attention": Unseen(CrossAttention, frames_and_words, _TWO, "ids"),
    "stock_encoder": Unseen(StockEncoder, words, _RUNGS, "ids", (12, 8, 20)),
    "cnn_lstm_video": Unseen(CnnLstmVideo, clip, ("clip:0=B:1-4", "clip:1=T:4-12")),
    "bag_and_conv": Unseen(BagAndConv, words, _TEXT),
}
