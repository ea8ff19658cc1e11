"""Presets: the paper's settings for each kind of model, and their steps."""
import pytest

from magnet_plugin.decoding.presets import preset_arguments


def test_paper_has_the_settings_of_the_paper_for_each_kind_of_model() -> None:
    music, long, sound = (preset_arguments("paper", 4, seconds, sound) for seconds, sound in
                          ((10.0, False), (30.0, False), (10.0, True)))
    assert music["decoding_steps"] == [20, 10, 10, 10] and long["decoding_steps"] == [60, 10, 10, 10]
    assert (music["temperature"], sound["temperature"], sound["top_p"], sound["max_cfg_coef"]) == (3.0, 3.5, 0.8, 20.0)


@pytest.mark.parametrize("name, codebooks, steps", [("fast", 4, [10, 5, 5, 5]), ("draft", 2, [5, 2]), ("best", 1, [20])])
def test_faster_presets_change_only_the_number_of_steps(name: str, codebooks: int, steps: list[int]) -> None:
    given, paper = preset_arguments(name, codebooks, 10.0, False), preset_arguments("paper", codebooks, 10.0, False)
    assert given == {**paper, "decoding_steps": steps}


@pytest.mark.parametrize("sound", [False, True])
def test_editing_samples_less_randomly_and_with_weaker_guidance(sound: bool) -> None:
    given, paper = preset_arguments("edit", 4, 10.0, sound), preset_arguments("paper", 4, 10.0, sound)
    assert given == {**paper, "temperature": 1.0, "max_cfg_coef": 3.0}


def test_presets_of_the_paper_are_found_by_their_own_names() -> None:
    assert preset_arguments("sound-10s", 4, 30.0, False) == preset_arguments("paper", 4, 10.0, True)
    with pytest.raises(ValueError, match="slow"):
        preset_arguments("slow", 4, 10.0, False)
