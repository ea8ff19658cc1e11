"""A text conditioner that needs no download: a learned table of hashed words.

T5's weights cannot be downloaded everywhere, AudioCraft's `whitespace` tokenizer needs a spaCy model from the web, and its
`noop` tokenizer hashes whole sentences. For the closed vocabulary of a generated data set, words are enough.
"""
import hashlib
import random
import typing as tp

import torch
from audiocraft.modules.conditioners import ConditionType, TextConditioner
from torch import nn

from ..data.captions import words_of


def bin_of(word: str, n_bins: int) -> int:
    """Hash a word to a bin from 1 to n_bins - 1, the same in every process; 0 is padding."""
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % (n_bins - 1)


class WordsConditioner(TextConditioner):
    """Embed each word of a description by its hash, for cross-attention.

    Args:
        output_dim: width of the embeddings handed to the transformer.
        n_bins: rows of the table; words that share a row are not distinguished.
        dim: width of the table.
        word_dropout: probability of dropping each word in training, so that short prompts work too.
    """

    def __init__(self, output_dim: int, n_bins: int = 2048, dim: int = 64, word_dropout: float = 0.0) -> None:
        super().__init__(dim, output_dim)
        self.n_bins = n_bins
        self.word_dropout = word_dropout
        self.embed = nn.Embedding(n_bins, dim, padding_idx=0)

    def tokenize(self, x: tp.Sequence[tp.Optional[str]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute bins and mask of each description, Long and Int [B, words]; no words give one masked entry."""
        rows = [self._bins(text) for text in x]
        width = max(1, max(map(len, rows), default=1))
        tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.long)
        tokens = tokens.to(self.embed.weight.device)
        return tokens, (tokens > 0).int()

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> ConditionType:
        """Embed bins [B, words]: embeddings [B, words, output_dim], zero where masked, and the mask."""
        tokens, mask = inputs
        return self.output_proj(self.embed(tokens)) * mask.unsqueeze(-1), mask

    def _bins(self, text: tp.Optional[str]) -> list[int]:
        words = words_of(text or "")
        if self.training and self.word_dropout > 0:
            words = [word for word in words if random.random() >= self.word_dropout]
        return [bin_of(word, self.n_bins) for word in words]
