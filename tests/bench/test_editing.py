"""`bench.editing`: rows and their controls, with models whose edits are known; records and tables."""
import json
import typing as tp
from pathlib import Path

import pytest
import torch

from magnet_plugin.bench.editing import pictures, record, rows, table
from magnet_plugin.bench.editing.clips import Bench, Sounds, over_seeds
from magnet_plugin.bench.measure import silent
from magnet_plugin.cli.main import main
from magnet_plugin.metrics.instruments import InstrumentClassifier
from magnet_plugin.models import keep
from magnet_plugin.models.keep_mask import Clip

from ..helpers.tones import RATE, RoundingCodec, tones, write_tones

SECONDS, HOP = 2.2, 16      # notes begin 0.05 s before and after the second in the middle
FRAMES = int(SECONDS * RATE / HOP)


class Model:
    """Edits clips of 2.2 s: what is free becomes `answer` of the clip, and a clip generated from text is silent."""

    sample_rate, frame_rate, max_duration = RATE, RATE / HOP, SECONDS

    def __init__(self, answer: tp.Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.answer, self.compression_model = answer, RoundingCodec()
        self.params: list[dict[str, tp.Any]] = []

    def set_generation_params(self, **params: tp.Any) -> None:
        self.params.append(params)

    def set_preset(self, name: str) -> None:
        self.params.append({"preset": name})

    def tokens(self, audio: torch.Tensor) -> torch.Tensor:
        return self.compression_model.encode(audio)[0]

    def inpaint(self, audio: torch.Tensor, rate: int, *, spans: list[tuple[float, float]], **_: tp.Any) -> Sounds:
        start, stop = (round(at * rate) for at in spans[0])
        made = audio.clone()
        made[..., start:stop] = self.answer(audio)[..., start:stop]
        return Sounds(made, self.tokens(made))

    def vary(self, audio: torch.Tensor, rate: int, *, keep: tp.Any = None, strength: float = 1.0, **_: tp.Any) -> Sounds:
        made = torch.lerp(audio, self.answer(audio), strength)
        return Sounds(made, self.tokens(made))

    def loop(self, audio: torch.Tensor, rate: int, *, seam: float, **_: tp.Any) -> Sounds:
        return Sounds(audio, self.tokens(audio))

    def generate(self, texts: list[str], return_tokens: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        silence = torch.zeros(len(texts), 1, int(SECONDS * RATE))
        return silence, self.tokens(silence)

    def generate_unconditional(self, count: int, return_tokens: bool, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.generate([""] * count, return_tokens, seed)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> InstrumentClassifier:
    return InstrumentClassifier.train(write_tones(tmp_path_factory.mktemp("tones"), 45, 0))


@pytest.fixture
def bench(classifier: InstrumentClassifier) -> tp.Callable[..., Bench]:
    """Returns a bench of four clips whose model gives a certain answer."""
    import numpy as np
    names = ["hollow", "bright", "plucked", "hollow"]
    rng = np.random.default_rng(0)
    audio = torch.from_numpy(np.stack([tones(name, rng, SECONDS) for name in names]))[:, None]

    def make(answer: tp.Callable[[torch.Tensor], torch.Tensor] = lambda audio: audio) -> Bench:
        model = Model(answer)
        tokens = model.tokens(audio)
        coded = Sounds(model.compression_model.decode(tokens)[..., :audio.shape[-1]], tokens)
        return Bench(model, classifier, Sounds(audio, tokens), coded, names, names, ["C major"] * 4, [0, 1], silent)

    return make


def test_an_oracle_reaches_the_real_second_and_the_controls_do_not(bench: tp.Callable[..., Bench]) -> None:
    found = rows.second(bench())
    assert found["inpainted (shown)"]["latents"] == found["the real second"]["latents"] == [0, 0, 0]
    assert found["inpainted (shown)"]["chroma"][0] < 0.01
    for name in ("unrelated clip", "caption without context", "neither caption nor context"):
        entry = found[f"inpainted (shown) − {name}"]
        assert entry["latents"][2] < 0 and entry["chroma"][2] < 0 and entry["timbre"][2] < 0, name
    assert found["unrelated clip − the real second"]["click"][1] > 0, "hard cuts"
    assert found["inpainted (shown) − the real second"]["flux"] == [0, 0, 0]
    assert "flux" not in found["every 7th frame kept (shown)"]


def test_both_values_of_upper_codebooks_are_measured(bench: tp.Callable[..., Bench]) -> None:
    subject = bench()
    rows.second(subject)
    assert subject.model.params == [{}, {"upper_codebooks": "shown"}, {"upper_codebooks": "hidden"}]


def test_controls_of_a_preset_are_generated_by_it(bench: tp.Callable[..., Bench]) -> None:
    subject = bench()
    found = rows.second_by_preset(subject)
    assert subject.model.params == [{"preset": "edit"}]
    assert found["inpainted"]["latents"] == found["inpainted"]["angle"] == [0, 0, 0]
    for name in ("silence", "caption without context", "neither caption nor context", "unrelated clip"):
        assert found[f"inpainted − {name}"]["angle"][2] < 0, name
    assert set(found["silence"]) == {"latents", "angle"}


def test_the_angle_of_latents_does_not_depend_on_how_loud_a_clip_is(bench: tp.Callable[..., Bench]) -> None:
    subject, frames = bench(), torch.arange(FRAMES + 1) % 2 == 0
    subject.model.compression_model.decode_latent = lambda codes: codes.double()
    real = subject.real.tokens.double()
    centre = real.mean((0, 2), keepdim=True)
    for factor, expected in ((0.25, 0.0), (1.0, 0.0), (4.0, 0.0), (-1.0, 2.0)):
        found = subject.latent_distances(Sounds(subject.real.audio, centre + factor * (real - centre)), frames)
        assert torch.allclose(found["angle"], torch.full((4,), expected, dtype=torch.double), atol=1e-3), factor
        assert (found["latents"] > 0).all() == (factor != 1.0)


def test_periodic_masks_free_as_many_frames_as_asked_in_the_middle() -> None:
    for length, count in ((250, 50), (251, 50), (100, 13)):
        free = rows.periodic_frames(length, count)
        at = free.nonzero()[:, 0]
        assert int(free.sum()) == count and not bool(free[::rows.PERIOD].any())
        assert abs(float(at.double().mean()) - (length - 1) / 2) < 1
        kept = ~free[int(at[0]):int(at[-1]) + 1]
        assert abs(int(kept.sum()) - count / (rows.PERIOD - 1)) <= 1


def test_variations_move_away_from_their_source(bench: tp.Callable[..., Bench]) -> None:
    found = rows.vary(bench(lambda audio: audio.flip(-1)))
    distances = [found[f"strength {tenth / 10:g}"]["latents"][0] for tenth in range(1, 11)]
    assert distances == sorted(distances) and distances[0] < distances[-1]
    assert found["the source"]["same_tokens"][0] == 1
    assert "codec latents in 9," in table.monotone(found)


def test_the_wrap_is_where_the_clip_repeats(bench: tp.Callable[..., Bench]) -> None:
    subject = bench()
    ramp = torch.linspace(-1, 1, subject.real.audio.shape[-1]).expand_as(subject.real.audio)
    import dataclasses
    found = rows.loop(dataclasses.replace(subject, real=Sounds(ramp.contiguous(), subject.real.tokens)))
    assert found["real clips repeated, at the wrap"]["click"][0] > 10 > found["real clips, in their middle"]["click"][0]
    assert found["loop, at the wrap"] == found["real clips repeated, at the wrap"], "this model changes nothing"


def test_drift_compares_windows_with_one_another_and_with_the_caption(bench: tp.Callable[..., Bench]) -> None:
    subject = bench()
    same = rows.drift(subject, [subject.real], [subject.real])
    assert same["same_instrument"] == same["same_key"] == [1, 1, 1] and same["timbre"] == [0, 0, 0]
    assert same["instrument_first"] == same["instrument_last"] == [1, 1, 1]
    moved = Sounds(subject.real.audio.roll(1, dims=0), subject.real.tokens)
    other = rows.drift(subject, [subject.real], [moved])
    assert other["same_instrument"][0] == other["instrument_last"][0] == 0.25, "of one neighbour of four"
    assert other["instrument_first"] == [1, 1, 1] and other["timbre"][1] > 0 and other["pitches"][0] > 0


def test_seeds_pair_clips_with_different_ones(bench: tp.Callable[..., Bench]) -> None:
    subject = bench()
    made = subject.unrelated()
    assert all(not torch.equal(one, other) for sounds in made for one, other in zip(sounds.audio, subject.coded.audio))
    assert not torch.equal(made[0].audio, made[1].audio)
    scores = over_seeds(made, lambda sounds: {"first": sounds.audio[:, 0, 0]})
    assert scores["first"].shape == (2, 4)


def test_a_record_is_resumed_and_its_table_shows_all_units(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measured: list[str] = []

    def unit(name: str) -> tp.Callable[[tp.Any], tp.Any]:
        def measure(bench: tp.Any) -> tp.Any:
            measured.append(name)
            return {f"row of {name}": {"latents": [1.5, 1.25, 1.75], "same_key": [0.5, 0.25, 0.75]}}
        return measure

    monkeypatch.setattr(record, "UNITS", {name: unit(name) for name in ("second", "vary", "loop", "long forward 0.6")})
    monkeypatch.setattr(record.Bench, "load", lambda *args: None)

    def run(clips: int, *only: str) -> list[str]:
        measured.clear()
        record.measure((tmp_path, tmp_path), clips, [0, 1], silent, tmp_path, only, model=object())
        return measured

    assert run(24, "loop") == ["loop"]
    assert run(24) == ["second", "vary", "long forward 0.6"]
    assert run(24) == []
    assert list(json.loads((tmp_path / "editing.json").read_text())["cases"][0]["units"]) == list(record.UNITS)
    text = "\n".join(table.blocks(json.loads((tmp_path / "editing.json").read_text())["cases"][0]))
    assert "| row of second | 1.50 [1.25, 1.75] | – | – | – | – |" in text
    assert "| row of long forward 0.6 | – | – | 50% [25, 75] |" in text and "8 of the clips" in text
    assert run(12, "vary") == ["vary"], "other clips"


def test_negative_numbers_and_points_in_the_table() -> None:
    assert table.cell({"latents": [-0.5, -1.25, 0.25]}, "latents") == "−0.50 [−1.25, 0.25]"
    assert table.cell({"latents": [12.345, 11.0, 13.0]}, "latents") == "12.3 [11.0, 13.0]"
    assert table.cell({"same_key": [1.0, 1.0, 1.0]}, "same_key") == "100%"


def test_pictures_are_small_files(bench: tp.Callable[..., Bench], tmp_path: Path) -> None:
    subject = bench(lambda audio: audio.flip(-1)).real
    panels = [("before", subject.audio[0], []), ("after", subject.audio[1], [(0.5, 1.5)])]
    clip = Clip(4, 100, 50.0, 1, subject.audio[:1], RATE)
    for name, figure in (("panels", pictures.draw_panels(panels, RATE)), ("windows", pictures.draw_windows(50, 50.0, 3.4)),
                         ("masks", pictures.draw_masks([keep.prefix(1.0), keep.every(10)], clip))):
        path = pictures.save(figure, tmp_path / f"{name}.png")
        assert path.read_bytes().startswith(b"\x89PNG") and 2000 < path.stat().st_size < 150_000, name


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], bench: tp.Callable[..., Bench]) -> None:
    with pytest.raises(ValueError, match="--only flute: editing has no such unit; give part of one of: second; second"):
        record.measure((tmp_path, tmp_path), 3, [0], silent, tmp_path, ["flute"])
    folder = write_tones(tmp_path, 3, 0)
    with pytest.raises(ValueError, match=r"clips of 2.2 s, the length of the model's own clips; got 3 of \[1.0\] s"):
        Bench.load(bench().model, (folder, folder), 3, [0], silent)
    with pytest.raises(SystemExit):
        main(["bench", "editing", "--clips", "2"])
    assert "--clips: 2 is too small; give 3 or more" in capsys.readouterr().err
