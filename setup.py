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
    description="MAGNeT for AudioCraft: train, sweep and play masked audio models on any machine",
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
    package_data={"": ["*.yaml", "*.html"], "magnet_plugin.models": ["bundled/*/*"]},
    install_requires=[
        "audiocraft>=1.3.0,<1.5",
        "torch>=2.1",
        "torchaudio>=2.1",
        "xformers>=0.0.23",
        "dora-search>=0.1.12",
        "flashy>=0.0.1",
        "encodec>=0.1.1",
        "julius>=0.2.7",
        "submitit>=1.4",
        "hydra-core>=1.3",
        "omegaconf>=2.3",
        "numpy>=1.26",
        "soundfile>=0.12",
        "einops>=0.7",
        "tqdm>=4.60",
        "tensorboard>=2.14",
        "imageio-ffmpeg>=0.4.9",   # the binary that AudioCraft's audio_write calls
        # The default data set (folk tunes played on General MIDI instruments) is made on first use.
        "music21>=9.1",
        "pretty_midi>=0.2.10",     # carries the SoundFont
        "tinysoundfont>=0.3.6",
    ],
    extras_require={
        "app": ["gradio>=4"],
        "metrics": ["scipy>=1.11", "scikit-learn>=1.3", "matplotlib>=3.8"],
        "data": ["librosa>=0.10"],
        "dev": ["pytest>=8", "ruff>=0.6", "mypy>=1.10", "matplotlib>=3.8", "scipy>=1.11", "build>=1.2", "setuptools>=68",
                "wheel"],
    },
    entry_points={"console_scripts": ["magnet = magnet_plugin.cli.main:main"]},
    classifiers=["Programming Language :: Python :: 3", "License :: OSI Approved :: MIT License"],
)
