"""Decoding options: validation and presets."""
import typing as tp

import pytest

from magnet_plugin.decoding.options import PRESETS, GenerationOptions, preset


@pytest.mark.parametrize("setting,value", [
    ("top_p", 1.5), ("top_p", -0.1), ("top_k", -1), ("temp", 0.0), ("span_arrangement", "grid"), ("span_order", "random"),
    ("span_scoring", "mean"),
    ("max_cfg_coef", -1.0), ("decoding_steps", [20, 0, 10, 10]), ("decoding_steps", []), ("decoding_steps", "many")])
def test_invalid_values_are_refused_by_the_name_of_the_setting(setting: str, value: tp.Any) -> None:
    word = "temperature" if setting == "temp" else setting
    with pytest.raises(ValueError, match=word):
        GenerationOptions(**{setting: value})


@pytest.mark.parametrize("wrong,named", [({"engine": "fast"}, "engine='fast'"), ({"precision": "int4"}, "precision='int4'"),
                                         ({"guidance_interval": (0.9, 0.1)}, "guidance_interval"),
                                         ({"guidance_interval": 3}, "guidance_interval=3"),
                                         ({"guidance_every": 0}, "guidance_every"),
                                         ({"engine": "plain", "precision": "int8"}, "engine=plain")])
def test_invalid_settings_of_the_fast_path_are_refused(wrong: dict[str, tp.Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GenerationOptions(**wrong)


@pytest.mark.parametrize("steps", [(20, 10, 10), (20, 10, 10, 10, 10)])
def test_each_codebook_needs_its_number_of_steps(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="decoding_steps.*4 codebooks"):
        GenerationOptions(decoding_steps=steps).check_codebooks(4)


def test_presets_have_the_settings_of_the_paper() -> None:
    assert PRESETS["sound-10s"].max_cfg_coef == 20.0 and PRESETS["music-30s"].decoding_steps == (60, 10, 10, 10)
    assert preset("music-10s", top_p=0.5).top_p == 0.5
    with pytest.raises(ValueError, match="music-10s, music-30s, sound-10s"):
        preset("speech")


def test_options_survive_the_conversion_to_plain_values() -> None:
    options = GenerationOptions(top_p=0.5, guidance_interval=(0.1, 0.8), rescorer_stages=(0, 2))
    plain = options.plain()
    assert plain["decoding_steps"] == [20, 10, 10, 10] and plain["guidance_interval"] == [0.1, 0.8]
    assert GenerationOptions(**plain) == options
