"""Packaging of the MAGNeT plugin. In a wheel `config/` and `grids/` are installed inside the package."""
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "magnet_plugin/__init__.py").read_text()).group(1)


def files_below(folder: str, suffix: str) -> list[str]:
    return sorted({str(path.parent.relative_to(HERE)) for path in (HERE / folder).rglob(f"*{suffix}")})


CONFIG = {folder: f"magnet_plugin/{folder}" for folder in files_below("config", ".yaml")}
GRIDS = {folder.replace("/", "."): folder for folder in files_below("grids", ".py")}

setup(
    name="magnet-plugin",
    version=VERSION,
    description="MAGNeT for AudioCraft: train, tune and run masked audio models on any machine",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.13",
    packages=[*find_packages(include=["magnet_plugin*"]),
              *(f"magnet_plugin.{name.replace('/', '.')}" for name in CONFIG),
              *(f"magnet_plugin.{name}" for name in GRIDS)],
    package_dir={"magnet_plugin": "magnet_plugin",
                 **{f"magnet_plugin.{name.replace('/', '.')}": name for name in CONFIG},
                 **{f"magnet_plugin.{name}": folder for name, folder in GRIDS.items()}},
    package_data={"": ["*.yaml", "*.html", "*.js", "*.css", "*.txt"], "magnet_plugin.models": ["bundled/*/*"]},
    # AudioCraft 1.3.0 pins packages that no longer install (torch 2.1, av 11), and tinysoundfont requires PyAudio, a source
    # build that needs PortAudio's headers, for playback only. Both are therefore installed with --no-deps (see README.md),
    # and what AudioCraft imports is listed here. The floors are versions that work; tests/test_packaging.py gives reasons.
    install_requires=[
        "torch>=2.7",
        "torchaudio>=2.7",
        "xformers>=0.0.30",
        "numpy>=1.26",
        "dora-search>=0.1.12",
        "flashy>=0.0.2",
        "hydra-core>=1.3",
        "omegaconf>=2.3",
        "submitit>=1.5",
        "treetable>=0.2.5",
        "tensorboard>=2.14",
        "einops>=0.7",
        "julius>=0.2.7",
        "tqdm>=4.66",
        "jinja2>=3.1",             # the HTML page of `magnet demo`
        "filelock>=3.12",
        "loky>=3.4",               # worker processes that do not import the caller's main module again
        "psutil>=5.9",             # with which loky ends its workers where there is no pgrep
        "av>=14",
        "soundfile>=0.12",
        "librosa>=0.10.2",
        "transformers>=4.46",
        "sentencepiece>=0.2",      # T5's tokenizer
        "protobuf>=4.21",          # T5's tokenizer
        "huggingface_hub>=0.24",
        "safetensors>=0.4",
        "spacy>=3.8.13",
        "num2words>=0.5.12",
        "torchmetrics>=1.4",
        "typing_extensions>=4.8",
        "pyyaml>=6.0.1",
        "imageio-ffmpeg>=0.5.1",   # the ffmpeg binary that AudioCraft's audio_write runs
        # The default data set (folk tunes played on General MIDI instruments), rendered on first use.
        "music21>=9.1",
        "pretty_midi>=0.2.10",     # contains the SoundFont
        # Metrics and pictures. librosa and music21 depend on these in any case.
        "scipy>=1.11.4",
        "scikit-learn>=1.4",
        "matplotlib>=3.8",
        "pillow>=10",
    ],
    extras_require={
        # What `magnet bench codec` compares notes with; basic-pitch itself is installed with --no-deps.
        "judges": ["onnxruntime>=1.16", "mir_eval>=0.7"],
        "app": ["gradio>=6"],          # the page of `magnet app`
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        # playwright drives the browser of the host; nbclient runs the notebook in docs.
        "dev": ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.10", "build>=1.2",
                "setuptools>=68", "wheel", "playwright>=1.40", "nbclient>=0.10", "nbformat>=5.9", "ipykernel>=6.29"],
    },
    entry_points={"console_scripts": ["magnet = magnet_plugin.cli.main:main"]},
    classifiers=["Programming Language :: Python :: 3", "License :: OSI Approved :: MIT License"],
)
