"""AudioCraft without the heavy packages that it imports at its top level."""
import subprocess
import sys


def test_deferred_packages_load_on_first_use():
    code = """
import sys
from magnet_plugin import register
from magnet_plugin.cli.deferred_imports import defer_imports
defer_imports()
register()
assert not {"xformers", "spacy", "transformers", "librosa", "torchmetrics", "sympy"} & sys.modules.keys()
from audiocraft.modules import chroma, conditioners
from audiocraft.solvers import builders
standins = [n for n, m in list(sys.modules.items()) for v in list(vars(m).values()) if type(v).__name__ == "_Deferred"]
assert standins and all(name.startswith("audiocraft.") for name in standins), standins
assert conditioners.T5Tokenizer.from_pretrained.__self__.__name__ == "T5Tokenizer"
assert chroma.filters.chroma(sr=16000, n_fft=512).shape == (12, 257)
import audiocraft.metrics, transformers
assert builders.metrics.FrechetAudioDistanceMetric is audiocraft.metrics.FrechetAudioDistanceMetric
assert type(transformers.T5EncoderModel) is type(conditioners.T5EncoderModel._load())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
