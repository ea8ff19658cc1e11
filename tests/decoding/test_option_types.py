"""Values of a wrong type are refused where settings are made, by the name that a caller knows."""
import math
import typing as tp

import numpy as np
import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens
from magnet_plugin.decoding.options import GenerationOptions, PromptOptions

BAD: list[tuple[dict[str, tp.Any], str]] = [
    ({"top_k": "5"}, "top_k='5' must be a whole number"), ({"top_k": 1.5}, "top_k=1.5 must be a whole"),
    ({"top_k": math.nan}, "top_k=nan must be a whole"), ({"top_k": True}, "top_k=True must be a whole"),
    ({"top_p": None}, "top_p=None must be a finite number"), ({"top_p": math.nan}, "top_p=nan must be a finite"),
    ({"temp": "3"}, "temperature .temp in configs.='3' must be a finite"), ({"temp": math.inf}, "temperature .*finite"),
    ({"max_cfg_coef": "x"}, "max_cfg_coef='x' must be a finite"), ({"max_cfg_coef": math.nan}, "max_cfg_coef=nan"),
    ({"decoding_steps": 20}, "decoding_steps=20 must be a list"), ({"decoding_steps": "2111"}, "decoding_steps='2111' must"),
    ({"decoding_steps": [math.inf, 1]}, "decoding_steps=.* list with one whole number"),
    ({"decoding_steps": [1.9, 1]}, "decoding_steps=.* whole number"), ({"decoding_steps": [10 ** 9]}, "1 to 10000 steps"),
    ({"decoding_steps": [0]}, "1 to 10000 steps"), ({"decoding_steps": []}, "1 to 10000 steps"),
    ({"use_sampling": 1}, "use_sampling=1 must be True or False"), ({"anneal_temp": None}, "anneal_temp=None must be True"),
    ({"engine": 3}, "engine=3 must be a word"), ({"guidance_interval": [0, "x"]}, "guidance_interval=.* two mask rates"),
    ({"guidance_interval": [0, math.nan]}, "guidance_interval=.* two mask rates"),
    ({"guidance_every": 1.5}, "guidance_every=1.5 must be a whole"), ({"rescorer_every": 2.0}, "rescorer_every=2.0 must"),
    ({"rescorer_weight": "0.5"}, "rescorer_weight='0.5'"),
    ({"rescorer_stages": [0.5]}, "rescorer_stages=.* list of codebooks"),
    ({"rescorer_resample": "no"}, "rescorer_resample='no' must be True or False"),
]


@pytest.mark.parametrize("options, words", BAD, ids=[f"{next(iter(options))}-{i}" for i, (options, _) in enumerate(BAD)])
def test_values_of_a_wrong_type_are_refused(options: dict[str, tp.Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GenerationOptions.read(options)


@pytest.mark.parametrize("options, words", [({"top_k": 2.5}, "top_k"), ({"temperature": None}, "temperature"),
                                            ({"frames": "3"}, "frames"), ({"cfg_coef": math.inf}, "cfg_coef")])
def test_the_same_holds_for_the_prompt(options: dict[str, tp.Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PromptOptions(**options)


def test_numbers_of_numpy_become_plain_ones() -> None:
    options = GenerationOptions(top_k=np.int64(5), temp=np.float32(1.5), decoding_steps=np.array([2, 1]))   # type: ignore[arg-type]
    assert type(options.top_k) is int and type(options.temp) is float and options.decoding_steps == (2, 1)
    assert all(type(steps) is int for steps in options.decoding_steps)


def test_unknown_settings_are_refused_with_the_most_similar_name() -> None:
    with pytest.raises(ValueError, match="there is no setting 'temperature'; did you mean temp"):
        GenerationOptions.read({"temperature": 1.0})
    with pytest.raises(ValueError, match="did you mean top_p"):
        GenerationOptions.read({"topp": 1.0})
    with pytest.raises(ValueError, match="there is no setting 'zzz'; settings are anneal_temp"):
        GenerationOptions.read({"zzz": 1.0})


def known(tokens: tp.Any, flags: tp.Any = None) -> KnownTokens:
    values = torch.as_tensor(tokens)
    return KnownTokens(values, torch.ones_like(values, dtype=torch.bool) if flags is None else torch.as_tensor(flags))


@pytest.mark.parametrize("clip, words", [
    (known([[[9, 1], [1, 1]]]), "the token 9 is not one of .* 0 to 4"), (known([[[0, 1], [-1, 1]]]), "the token -1"),
    (known([[[5, 1], [1, 1]]]), "the token 5"), (known([[[1.0, 1], [1, 1]]]), "must be Long"),
    (known([[[1, 1]]]), r"must be \[B, 2, T\].*got \[1, 1, 2\]"),
    (known(torch.zeros(0, 2, 3).long()), "at least one sample"),
    (known(torch.zeros(1, 2, 0).long()), "one frame"), (known([[1, 1], [1, 1]]), "must be"),
    (known([[[1, 1], [1, 1]]], [[[1, 1], [1, 1]]]), "known must be Bool"),
    (known([[[1, 1], [1, 1]]], [True]), "known must be Bool"),
])
def test_known_tokens_are_checked(clip: KnownTokens, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clip.check(2, 5)


def test_what_is_not_known_may_hold_anything() -> None:
    known([[[9, 4], [0, -7]]], [[[False, True], [True, False]]]).check(2, 5)
