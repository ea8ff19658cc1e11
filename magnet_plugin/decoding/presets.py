"""Presets of decoding settings: the paper's for each of its models, how quality is traded for speed, and those for editing.

Importing this module loads nothing heavy.
"""
import typing as tp

from .options import default_steps, preset

#: Share of the paper's decoding steps. `best` is the paper's settings until others are measured to be better.
STEPS = {"paper": 1.0, "best": 1.0, "fast": 0.5, "draft": 0.25}
#: Settings of `edit` that differ from the paper's: less random, and less led by the text. Editing methods do not use them
#: by default, because what they fill in is then nearer to the real sound only in codec latents (docs/results/bench.md).
EDIT = {"temp": 1.0, "max_cfg_coef": 3.0}
NAMES = (*STEPS, "edit")
LONG = 20.0         # seconds from which a model counts as one of the paper's for 30 seconds


def preset_arguments(name: str, codebooks: int, seconds: float, sound: bool) -> dict[str, tp.Any]:
    """Return a preset as arguments of `set_generation_params`; settings that it does not name have their defaults.

    >>> preset_arguments("fast", codebooks=4, seconds=10, sound=False)["decoding_steps"]
    [10, 5, 5, 5]

    Args:
        name: one of `NAMES`, or of `options.PRESETS`.
        codebooks: number of the model's codebooks.
        seconds: length that it was trained on.
        sound: whether it was trained on sound, and not on music.
    Raises:
        ValueError: there is no such preset.
    """
    if name not in NAMES:
        chosen, share = preset(name).plain(), 1.0
    else:
        chosen = preset("sound-10s" if sound else "music-30s" if seconds >= LONG else "music-10s").plain()
        share = STEPS.get(name, 1.0)
        first = chosen["decoding_steps"][0]
        chosen["decoding_steps"] = [round(share * count) for count in (first, *default_steps(codebooks)[1:])]
    chosen |= EDIT if name == "edit" else {}
    del chosen["rescorer_weight"]                   # Depends on whether there is a rescorer.
    return {"temperature": chosen.pop("temp"), **chosen}
