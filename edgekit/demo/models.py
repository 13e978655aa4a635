"""The demo's two students, as `edgekit convert edgekit.demo.models:NAME` builds them; `material` trains them."""

from __future__ import annotations

from edgekit.students.bilstm_classifier import BiLSTMClassifier
from edgekit.students.multi_exit import MultiExitCNN
from edgekit.students.sampling import seeded

# One word for every cell of the 8 x 8 digit at every of three strengths of ink, and the padding.
STRENGTHS = 3
WORDS = 1 + 64 * STRENGTHS


def digits_cnn(seed: int = 0) -> MultiExitCNN:
    """A digit somewhere on a photograph: image [B, 3, 96, 96] in [0, 1] to three exits of logits [B, 10].

    Residual stages of 32, 64 and 128 channels at 48, 24 and 12 pixels: about 150 million multiply-accumulates, enough
    for int8 to pay on a CPU.
    """
    with seeded(seed):
        return MultiExitCNN(3, widths=(32, 64, 128), blocks=(1, 1, 2), stem_stride=2).eval()


def digits_bilstm(seed: int = 0) -> BiLSTMClassifier:
    """A digit told in words: ids [B, T], one word an inked cell in reading order, to logits [B, 10]."""
    with seeded(seed):
        return BiLSTMClassifier(WORDS, width=64, hidden=128, classes=10).eval()
