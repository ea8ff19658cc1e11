"""AudioCraft's quantizer with the repair of unused entries."""
import torch

import magnet_plugin

magnet_plugin.register()
from audiocraft.quantization import ResidualVectorQuantizer  # noqa: E402


def test_entries_that_lose_all_vectors_are_used_again() -> None:
    """The vectors move far away from the first codebook's entries; a few steps later, most of them are used."""
    torch.manual_seed(0)
    quantizer = ResidualVectorQuantizer(dimension=4, n_q=1, bins=32, kmeans_init=True, threshold_ema_dead_code=1).train()

    def used(vectors: torch.Tensor) -> int:
        return len(quantizer(vectors, 50).codes.unique())
    assert used(torch.randn(4, 4, 100)) > 28
    codebook = quantizer.vq.layers[0]._codebook
    codebook.cluster_size.fill_(0.1)                    # as after many steps without a vector
    counts = [used(100 + 10 * torch.randn(4, 4, 100)) for _ in range(20)]
    assert counts[0] < 8 and counts[-1] > 24
    assert (codebook.embed.mean() - 100).abs() < 10
