"""One table of bad inputs: each call ends in an error of one line that names what is wrong."""
import math
import typing as tp

import pytest
import torch

from magnet_plugin.decoding.known_tokens import KnownTokens

from .helpers.small_models import CARD, MagnetLMModel, build_scaled, conditions
from .helpers.toy_magnets import toy_magnet

NAN, INF = math.nan, math.inf
Z, T = torch.zeros(1, 1, 400), torch.zeros(1, 4, 5, dtype=torch.long)
Row = tuple[str, tuple, dict[str, tp.Any], str]


def each(method: str, name: str, values: tp.Sequence[tp.Any], words: str, *arguments: tp.Any) -> list[Row]:
    """Rows that differ in one argument; an empty name is the first positional one."""
    return [(method, (*arguments, *(() if name else (value,))), {name: value} if name else {}, words) for value in values]


API: list[Row] = [
    *each("generate", "", [5, 3.5, b"x", {"a": 1}], "descriptions=.* must be a list of texts"),
    *each("generate", "", ["text"], "not one text; pass .text."),
    *each("generate", "", [[]], "descriptions is empty"),
    *each("generate", "", [[5], [b"x"], [["x"]], [NAN]], "is not a text; pass strings"),
    *each("generate", "seed", ["1", 1.5, NAN, True], "seed=.* whole number", ["a"]),
    *each("generate", "seed", [[1, 2]], "2 seeds for 1 samples", ["a"]),
    *each("generate", "seed", [[None], [1.5], ["x"]], "seed", ["a"]),
    *each("generate", "negative_descriptions", [[3], 3], "negative_descriptions", ["a"]),
    *each("generate", "negative_descriptions", [["a", "b"]], "2 negative_descriptions for 1 samples", ["a"]),
    *each("generate", "bpm", [NAN, INF, -1, 0, "fast", True], "bpm=", ["a"]),
    *each("generate", "key", ["H major", "", "C", 5], "key=.* must be a tonic and a mode", ["a"]),
    *each("generate", "timed_descriptions", [5, "x", [(1,)], [("a", "b")], [(NAN, "b")], [(-1, "b")], [(0, 5)], [None]],
          "timed_descriptions", ["a"]),
    *each("generate", "on_window", [5, "x", [1]], "on_window=.* must be a function", ["a"]),
    *each("generate_unconditional", "", [0, -1], "num_samples=.* must be at least 1"),
    *each("generate_unconditional", "", [1.5, "2", None, NAN, True], "num_samples=.* must be a whole number"),
    *each("warmup", "", [0, -1], "batch_size=.* must be at least 1"),
    *each("warmup", "", [1.5, "x", NAN, None], "batch_size=.* must be a whole number"),
    *each("warmup", "duration", [0, NAN, "x"], "duration="),
    *each("generate_continuation", "", [[0.0], "x", None, Z.to_sparse()], "prompt must be a dense tensor", *()),
    *each("generate_continuation", "descriptions", ["text"], "not one text; pass .text.", Z),
    *each("inpaint", "spans", [5, None, [], "ab", [(0, NAN)], [(0, "x")], [(0, .1, .2)]], "spans=.* must be a list", Z, 800),
    *each("inpaint", "spans", [[(0.3, 0.1)], [(0, 9)], [(-1, 0.1)]], "must lie within the recording", Z, 800),
    *each("extend", "before", [-1, NAN, "x", None, INF], "before", Z, 800),
    *each("extend", "after", [-1, NAN, "x", None, INF], "after", Z, 800),
    *each("vary", "strength", ["x", NAN, -1, 2], "strength", Z, 800),
    *each("loop", "seam", ["x", NAN, -1, 0], "seam", Z, 800),
    *(row for name in ("duration", "extend_stride", "prompt_duration") for row in each(
        "with_generation_params", name, ["x", NAN, -1, [1], True, {}], f"{name}|overlap|stride")),
    *(row for name in ("engine", "precision", "span_scoring", "span_arrangement", "upper_codebooks", "text_padding")
      for row in each("with_generation_params", name, ["x", 5, None], f"{name}=")),
    *each("with_generation_params", "rescorer_weight", ["x", NAN, [1], {}, True], "rescorer_weight=.* finite number"),
    *each("with_generation_params", "rescorer_weight", [0.5], "rescorer_weight=0.5 needs a rescorer"),
    *each("with_generation_params", "nonsense", [1], "there is no setting 'nonsense'"),
    *each("with_generation_params", "decoding_steps", [[1], [1] * 5], "codebooks; give one number of steps per codebook"),
    *each("with_generation_params", "rescorer", [5, [1]], "rescorer must be a name, a folder or a model"),
    *each("with_generation_params", "prompt_model", [5, [1]], "prompt_model is given, but prompt_duration=0"),
]
FEW: dict[str, tp.Any] = {"decoding_steps": [1] * 4}
LM: list[Row] = [
    *((method, args, {**kwargs, **FEW}, words) for method, args, kwargs, words in [
        *each("generate", "prompt", ["x", [1], T.to_sparse(), T.to("meta")], "prompt must be a dense tensor"),
        *each("generate", "prompt", [T.float(), T.bool(), T.int(), T.half()], "prompt must be Long"),
        *each("generate", "prompt", [T[:, :2], T[0]], "tokens must be .B, 4, P."),
        *each("generate", "prompt", [T - 1, T + 9999, T + CARD], "is not one of the codec's"),
        *each("generate", "max_gen_len", [0, -1], "max_gen_len=.* must be at least 1"),
        *each("generate", "max_gen_len", [1.5, "x", NAN, None, True], "max_gen_len=.* must be a whole number"),
        *each("generate", "max_gen_len", [5, 4], "nothing is left to decode", T),
        *each("generate", "num_samples", [0, -1], "at least one sample"),
        *each("generate", "num_samples", [1.5, "x", True], "num_samples=.* must be a whole number"),
        *each("generate", "num_samples", [3], "num_samples=3, but there are 2 conditions", None, conditions("a", "b")),
        *each("generate", "", [["a"], 5, "a", [None]], "conditions must be a list of ConditioningAttributes", None),
        *each("generate", "negative", [["a"], 5], "negative must be a list of ConditioningAttributes"),
        *each("generate", "known_tokens", ["x", T], "known_tokens must be KnownTokens"),
        *each("generate", "known_tokens", [KnownTokens(T[:, :3], T[:, :3] == 0)], "tokens must be .B, 4, T."),
        *each("generate", "known_tokens", [KnownTokens(T, T)], "known must be Bool"),
        *each("generate", "callback", [5, "x"], "callback=.* must be a function"),
        *each("generate", "rescorer", ["x", 5], "rescorer must be a rescorer"),
        *each("generate", "seed", ["x", 1.5, [1, 2]], "seed"),
        *each("generate", "cfg_coef", [1.0], "cfg_coef"),
        *each("generate", "temperature", [1.0], "there is no setting 'temperature'; did you mean temp"),
    ])]


@pytest.fixture(scope="module")
def models() -> dict[str, tp.Any]:
    return {"API": toy_magnet(), "LM": build_scaled(MagnetLMModel, length=50)}


CASES = [("API", *row) for row in API] + [("LM", *row) for row in LM]


@pytest.mark.parametrize("door, method, arguments, named, words", CASES, ids=[
    f"{door}-{method}-{number}" for number, (door, method, *_) in enumerate(CASES)])
def test_a_bad_input_is_refused_in_one_line(models: dict[str, tp.Any], door: str, method: str, arguments: tuple,
                                            named: dict[str, tp.Any], words: str) -> None:
    if method == "generate_continuation":
        arguments = (*arguments, 800)
    with pytest.raises(ValueError, match=words) as error:
        getattr(models[door], method)(*arguments, **named)
    assert "\n" not in str(error.value).replace("tensor(", "") or isinstance(arguments[0], torch.Tensor)


def test_the_table_is_long_enough_to_be_worth_its_name() -> None:
    assert len(CASES) >= 120
