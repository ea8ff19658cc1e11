"""A training skips unreadable files, counts and names them, and ends with their list if they are too many."""
from __future__ import annotations

import json
import logging
import random
import re
import typing as tp
from pathlib import Path

import numpy as np
import pytest
import torch

import magnet_plugin
from magnet_plugin.data.manifests import entry, write_manifest
from magnet_plugin.data.unreadable import TooManyUnreadable, check_limit, count_reads
from magnet_plugin.solvers.position import prepare_loader

from ..helpers.faulty_audio import RATE, SECONDS, UNUSABLE, USABLE, plain

GOOD, ITEMS = 5, 60


def manifest(folder: Path, *others: Path, good: int = GOOD) -> Path:
    """A manifest of good files and others, whose stated duration is that of the good ones."""
    paths = [folder / f"good {number}.wav" for number in range(good)]
    for path in paths:
        plain(path)
    for path in (*paths, *others):
        path.with_suffix(".json").write_text(json.dumps({"description": "a reel"}))
    return write_manifest(folder / "egs", [entry(path, SECONDS, RATE) for path in (*paths, *others)])


def loader_of(folder: Path, limit: float = 1.0, workers: int = 0, counted: bool = True, items: int = ITEMS, **options: tp.Any
              ) -> tp.Any:
    """A loader as the solver builds it."""
    magnet_plugin.register()
    from audiocraft.data.music_dataset import MusicDataset
    settings = {"segment_duration": 1.0, "num_samples": items, "sample_rate": RATE, "channels": 1, "sample_on_weight": False,
                "info_fields_required": False, **options}
    dataset = MusicDataset.from_meta(folder, **settings)
    dataset.start_epoch(3)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=workers, collate_fn=dataset.collater)
    if counted:
        count_reads(loader, "train", limit)
        prepare_loader(loader, 7)
    return loader


def read(loader: tp.Any) -> tuple[torch.Tensor, list[str]]:
    batches = list(loader)
    return torch.cat([wav for wav, _ in batches]), [info.meta.path for _, infos in batches for info in infos]


def skips(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", sorted(set(UNUSABLE) - {"a-flac.wav"}))      # which can be read, but not everywhere
def test_an_unusable_file_is_skipped_and_named_once(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    UNUSABLE[name](tmp_path / name)
    loader = loader_of(manifest(tmp_path, tmp_path / name))
    wav, paths = read(loader)
    assert wav.shape == (ITEMS, 1, RATE) and wav.isfinite().all() and wav.abs().amax(dim=-1).min() > 0.4
    assert not any(name in path for path in paths) and len(set(paths)) == GOOD
    [line] = skips(caplog)
    assert f"unreadable file of the split train, and drew another clip: {tmp_path / name} (" in line and "1 files" in line
    reads, failed = loader.dataset.reads._counts
    assert reads == ITEMS + failed and failed > 2


@pytest.mark.parametrize("name", sorted(set(USABLE) - {"truncated.wav", "silent.wav"}))
def test_an_unusual_file_is_read(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    USABLE[name](tmp_path / name)
    wav, paths = read(loader_of(manifest(tmp_path, tmp_path / name), limit=0.0))
    own = torch.tensor([name in path for path in paths])
    assert own.any() and not skips(caplog) and wav.dtype == torch.float32
    assert wav[own].abs().amax(dim=-1).min() > 0.4 and wav.abs().max() <= 1.0


def test_crops_behind_the_end_of_a_file_are_not_taken_for_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The manifest says two seconds, and the files have half a second."""
    for short in ("short.flac", "short.wav", "short.ogg"):
        plain(tmp_path / short, np.ones(RATE // 2) * 0.5)
    wav, _ = read(loader_of(manifest(tmp_path, *(tmp_path / f"short.{e}" for e in ("flac", "wav", "ogg")), good=1)))
    assert wav.abs().amax(dim=-1).min() > 0
    assert len(skips(caplog)) == 3
    assert "although the manifest says 2.00 s" in "".join(skips(caplog))


def test_samples_that_are_not_finite_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain(tmp_path / "nan.wav", np.full(2 * RATE, np.nan), subtype="FLOAT")
    assert read(loader_of(manifest(tmp_path, tmp_path / "nan.wav")))[0].isfinite().all()
    assert "samples are not finite" in skips(caplog)[0]


@pytest.mark.parametrize("text", ["{broken", '["a list"]', '{"description": "a reel", "bpm": {"a": 1}}'])
def test_metadata_that_cannot_be_read_is_skipped(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = manifest(tmp_path)
    (tmp_path / "good 2.json").write_text(text)
    _, paths = read(loader_of(folder))
    assert len(set(paths)) == GOOD - 1 and len(skips(caplog)) == 1 and "good 2.wav" in skips(caplog)[0]


def test_files_that_vanish_or_change_during_a_training_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    loader = loader_of(manifest(tmp_path))
    assert len(set(read(loader)[1])) == GOOD and not skips(caplog)
    (tmp_path / "good 1.wav").unlink()
    (tmp_path / "good 3.wav").write_text("changed")
    assert len(set(read(loader)[1])) == GOOD - 2 and len(skips(caplog)) == 2
    plain(tmp_path / "good 3.wav", np.ones((3 * RATE, 2)) * 0.1)                # longer, and stereo
    assert len(set(read(loader)[1])) == GOOD - 1 and len(skips(caplog)) == 2


@pytest.mark.parametrize("options", [{}, {"sample_on_duration": False}, {"shuffle": False}, {"segment_duration": None},
                                     {"sample_on_duration": False, "permutation_on_files": True}])
def test_other_clips_are_those_that_audiocraft_draws(tmp_path: Path, options: dict) -> None:
    """With good files all items are the same; with a faulty one, those that AudioCraft reads at its first attempt."""
    whole = manifest(tmp_path / "a")
    random.seed(1)
    expected = read(loader_of(whole, counted=False, **options))
    random.seed(1)
    found = read(loader_of(whole, **options))
    assert found[1] == expected[1] and torch.equal(found[0], expected[0])
    (tmp_path / "a" / "good 2.wav").unlink()
    after = read(loader_of(whole, **options))[1]
    assert [path for path in after if "good 2" in path] == []
    same = [(one, two) for one, two in zip(expected[1], after, strict=True) if "good 2" not in one]
    assert same and all(one == two for one, two in same)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_files_end_the_run_with_their_list(tmp_path: Path, workers: int,
                                                               caplog: pytest.LogCaptureFixture) -> None:
    others = [tmp_path / f"text {number}.wav" for number in range(14)]
    for path in others:
        path.write_text("no audio")
    folder = manifest(tmp_path, *others, good=20)
    with pytest.raises(TooManyUnreadable) as error:
        read(loader_of(folder, limit=0.3, workers=workers, items=400))
    text = str(error.value)
    assert re.match(r"too many unreadable files in the split train: 3[1-4] of \d+ reads", text) and "\n" not in text
    assert "more than datasource.max_unreadable=0.3 allows" in text and "magnet data scan" in text
    assert sum(str(path) in text.partition("; the last")[0] for path in others) == 10
    assert re.search(r"1[1-4] files: .* and [1-4] more", text)
    loader = loader_of(folder, limit=0.8, workers=workers, items=400)
    assert len(set(read(loader)[1])) == 20
    reads, failed = loader.dataset.reads._counts
    assert reads == 400 + failed and 0.3 < failed / reads < 0.55, "workers count together"


def test_a_few_failures_at_the_start_are_within_the_limit(tmp_path: Path) -> None:
    """One of the first hundred reads may fail with a limit of 1%, none with 0."""
    for limit, allowed in ((0.01, 1), (0.0, 0), (0.05, 5)):
        reads = loader_of(manifest(tmp_path), limit).dataset.reads
        for _ in range(allowed):
            reads.fail(reads.paths[0], "broken", last=False)
        with pytest.raises(TooManyUnreadable, match=f"{allowed + 1} of {allowed + 1} reads"):
            reads.fail(reads.paths[0], "broken", last=False)


def test_a_run_without_any_readable_file_ends(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    with pytest.raises(TooManyUnreadable, match="10 of 10 reads failed, 10 clips in a row"):
        read(loader_of(manifest(tmp_path, *paths, good=0)))


@pytest.mark.parametrize("limit", [-0.1, 1.5, float("nan"), "1%", True, None])
def test_the_limit_is_checked(limit: tp.Any) -> None:
    with pytest.raises(ValueError, match=r"datasource\.max_unreadable=.* give the share of reads that may fail"):
        check_limit(limit)
