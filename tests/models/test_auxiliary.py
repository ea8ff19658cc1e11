"""Auxiliary models of a MAGNeT: loading by any name, and refusal of models with another token format."""
import dataclasses
from pathlib import Path

import pytest
import torch

import magnet_plugin
from tests.helpers.small_models import conditions
from tests.helpers.small_musicgens import build_musicgen, musicgen_folder

magnet_plugin.register()
from magnet_plugin.models import auxiliary  # noqa: E402
from magnet_plugin.models.auxiliary import TokenFormat, check_token_format, load_rescorer  # noqa: E402
from magnet_plugin.models.loaders import load_codec  # noqa: E402
from magnet_plugin.models.rescorers import MaskedRescorer  # noqa: E402

TEXTS = ("a fast reel on the flute", "a slow waltz")


@pytest.fixture(scope="module")
def musicgen(release_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return musicgen_folder(tmp_path_factory.mktemp("musicgen"), release_folder)


def test_names_and_objects_of_the_same_model_give_the_same_scores(release_folder: Path, musicgen: Path, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """A release folder, a Dora signature, AudioCraft's MusicGen, a bare LM score alike; a MAGNeT loads too."""
    from audiocraft.environment import AudioCraftEnvironment
    from audiocraft.models import MusicGen

    from magnet_plugin.models import checkpoints
    codec = load_codec(release_folder)
    package = checkpoints.load_package(musicgen, checkpoints.LM_FILE)
    run = tmp_path / "xps" / "0badcafe"
    run.mkdir(parents=True)
    cfg = package["xp.cfg"].copy()
    cfg.compression_model_checkpoint = str(release_folder / checkpoints.CODEC_FILE)
    torch.save({"best_state": {"model": package["best_state"]}, "xp.cfg": cfg}, run / "checkpoint.th")
    monkeypatch.setattr(AudioCraftEnvironment, "get_dora_dir", classmethod(lambda cls: tmp_path))
    theirs = MusicGen.get_pretrained(str(musicgen), device="cpu")
    tokens = torch.randint(0, 64, (2, 4, 7), generator=torch.Generator().manual_seed(0))
    scores = [load_rescorer(source, codec, "cpu").scorer(conditions(*TEXTS), 2)(tokens, 1)
              for source in (musicgen, str(musicgen), "//sig/0badcafe", theirs, theirs.lm)]
    assert all(torch.equal(one, scores[0]) for one in scores)
    again = load_rescorer(release_folder, codec, "cpu")
    assert isinstance(again, MaskedRescorer) and again.scorer(conditions(*TEXTS), 2)(tokens, 1).shape == (2, 7, 64)


def test_a_rescorer_of_another_codec_is_refused_with_every_difference(musicgen: Path, release_folder: Path) -> None:
    from audiocraft.models import MusicGen
    from audiocraft.models.builders import get_debug_compression_model
    codec = load_codec(release_folder)
    ours = TokenFormat.of_codec(codec)
    assert (ours.codebooks, ours.cardinality, ours.frame_rate, ours.sample_rate) == (4, 64, 50.0, 16000)
    assert len(ours.entries) == 4
    check_token_format(ours, ours, "X")
    theirs = TokenFormat(8, 2048, 75.0, 32000)
    words = "codebooks 8 instead of 4; cardinality 2048 instead of 64; frame rate 75/s instead of 50/s; " \
            "sample rate 32000 Hz instead of 16000 Hz"
    with pytest.raises(ValueError, match=f"X and this MAGNeT do not share a codec \\({words}\\)"):
        check_token_format(theirs, ours, "X")
    for field, value in (("codebooks", 3), ("cardinality", 65), ("frame_rate", 25.0), ("sample_rate", 8000)):
        with pytest.raises(ValueError, match=field.replace("_", " ")):
            check_token_format(dataclasses.replace(ours, **{field: value}), ours, "X")
    check_token_format(TokenFormat(4, 64), ours, "X")                        # all that an LM without a codec has
    check_token_format(dataclasses.replace(ours, entries=tuple(e.half() for e in ours.entries)), ours, "X")
    moved = (*ours.entries[:3], ours.entries[3] + 0.1)
    with pytest.raises(ValueError, match="codebook vectors differ"):
        check_token_format(dataclasses.replace(ours, entries=moved), ours, "X")
    other = MusicGen("NAME", get_debug_compression_model(sample_rate=32000), build_musicgen(card=400), max_duration=30)
    with pytest.raises(ValueError, match="rescorer NAME and.*cardinality 400 instead of 64; frame rate 25.*32000 Hz"):
        load_rescorer(other, codec)
    with pytest.raises(ValueError, match="rescorer LMModel.*cardinality 16 instead of 64"):
        load_rescorer(build_musicgen(), codec)


def test_sources_without_a_usable_model_are_refused(release_folder: Path, tmp_path: Path) -> None:
    codec = load_codec(release_folder)
    for source, words in ((3, "not int"), (tmp_path / "none", "no checkpoint found"), ("//sig/00000000", "no checkpoint"),
                          ("//bundled/codec-16khz", "not a language model")):
        with pytest.raises(ValueError, match=words):
            load_rescorer(source, codec)        # type: ignore[arg-type]
    chroma = build_musicgen(card=64)
    chroma.condition_provider.conditioners["self_wav"] = torch.nn.Identity()
    with pytest.raises(ValueError, match="also requires self_wav; use a model"):
        load_rescorer(chroma, codec)
    with pytest.raises(ValueError, match="is on meta, but the MAGNeT on cpu; load both"):
        load_rescorer(build_musicgen(card=64).to("meta"), codec)


def test_a_model_in_two_roles_is_loaded_once(musicgen: Path, release_folder: Path, monkeypatch: pytest.MonkeyPatch
                                                  ) -> None:
    built: list[str] = []
    build = auxiliary.build_lm
    monkeypatch.setattr(auxiliary, "build_lm", lambda *args: (built.append(args[1]), build(*args))[1])
    both = auxiliary.AuxiliaryModels(load_codec(release_folder), "cpu")
    assert both.rescorer(musicgen).lm is both.prompt_model(str(musicgen)).lm      # type: ignore[attr-defined]
    assert both.rescorer(str(musicgen)).name == f"rescorer {musicgen}"
    assert built == [str(musicgen)]


def test_autoregressive_model_generates_whole_clips_from_one_seed() -> None:
    from magnet_plugin.models.autoregressive import AutoregressiveModel
    musicgen = AutoregressiveModel.load("//bundled/musicgen-16khz")
    assert (musicgen.sample_rate, musicgen.duration) == (16000, 5.0)
    musicgen.duration = 0.5
    one, again, other = (musicgen.generate(["a reel"], seed=seed) for seed in (1, 1, 2))
    assert one.shape == (1, 1, 8000) and torch.equal(one, again) and not torch.equal(one, other)
    audio, tokens = musicgen.generate(["a reel", "a waltz"], return_tokens=True, seed=1)
    assert tokens.shape == (2, 4, 25) and torch.equal(audio, musicgen.compression_model.decode(tokens))


def test_the_bundled_models_work_together() -> None:
    """MAGNeT with the MusicGen as rescorer and as prompt model, and the hybrid by itself: full clips, one seed."""
    from magnet_plugin import MAGNeT
    few = {"decoding_steps": [3, 2, 2, 2], "duration": 1.0}
    model = MAGNeT.get_pretrained("//bundled/magnet-16khz", device="cpu", rescorer="//bundled/musicgen-16khz")
    model.set_generation_params(**few, prompt_model="//bundled/musicgen-16khz", prompt_duration=0.3)
    _, tokens = model.generate(["a reel on the flute"], return_tokens=True, seed=3)
    model.set_generation_params(**few, rescorer_weight=1.0, prompt_model="//bundled/musicgen-16khz", prompt_duration=0.3)
    _, unrescored = model.generate(["a reel on the flute"], return_tokens=True, seed=3)
    assert torch.equal(tokens[..., :15], unrescored[..., :15]) and not torch.equal(tokens, unrescored)
    hybrid = MAGNeT.get_pretrained("//bundled/hybrid-16khz", device="cpu")
    for seconds in (0.0, 0.3, 1.0):
        hybrid.set_generation_params(**few, prompt_duration=seconds)
        _, tokens = hybrid.generate(["a reel on the flute"], return_tokens=True, seed=3)
        assert tokens.shape == (1, 4, 50) and tokens.min() >= 0 and tokens.max() < 512
