"""The two scales that every grid runs at: the paper's, and one for two CPU cores."""
import dataclasses
import typing as tp

Job = tp.Mapping[str, tp.Any]     # settings by name, as Dora's launcher takes them


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the words of a grid mean in settings.

    Args:
        music: text to music, the small model on segments of 10 s.
        sound: text to sound, the small model.
        medium: from the small to the medium model.
        thirty: from segments of 10 s to segments of 30 s.
        parent: training of the MAGNeT that decoding grids share.
        hybrid: training of the Hybrid-MAGNeT that they share.
        judged: how a job that trains nothing is evaluated.
        prompts: seconds that a hybrid writes token by token.
        rescorer: an autoregressive model on the codec of `parent`.
        published_music: released models by name, with the settings that they were trained in.
        published_sound: the same for sound.
        sizes: of the models that `ablate_scale` trains.
        slurm: what a training asks for, by size of the model, and an evaluation (`judge`); fields of Dora's SlurmConfig.
    """
    music: Job
    sound: Job
    medium: Job
    thirty: Job
    parent: Job
    hybrid: Job
    judged: Job
    prompts: tp.Sequence[float]
    rescorer: str
    published_music: tp.Mapping[str, Job]
    published_sound: tp.Mapping[str, Job]
    sizes: tp.Sequence[Job]
    slurm: tp.Mapping[str, tp.Mapping[str, tp.Any]]


ADAMW = {"optim.optimizer": "adamw", "optim.lr": 1e-4}       # the medium music models'
_MEDIUM = {"model_scale": "medium"}
_SHARDED = {**_MEDIUM, "autocast": False, "fsdp.use": True, "dataset.evaluate.batch_size": 64}     # a clip a GPU
_MUSIC = {"solver": "magnet/magnet_32khz", "dataset.segment_duration": 10, "dataset.batch_size": 576,
          "generate.lm.decoding_steps": [20, 10, 10, 10]}
_THIRTY = {"dataset.segment_duration": 30, "dataset.batch_size": 192, "generate.lm.decoding_steps": [60, 10, 10, 10]}
_SOUND = {"solver": "magnet/audio_magnet_16khz"}

#: Recipes as published; a model that is evaluated alone fits a GPU whole, the medium one too, and is not sharded.
#: Data is yours: MAGNET_GRID_OVERRIDES="datasource.train=… datasource.valid=… …".
PAPER = Scale(
    music=_MUSIC, sound=_SOUND, medium=_SHARDED, thirty=_THIRTY,
    parent=_MUSIC, hybrid={**_MUSIC, "solver": "magnet/hybrid_32khz"},
    judged={"solver/musicgen/evaluation": "objective_eval", "dataset.evaluate.batch_size": 128},
    prompts=(0.5, 1, 2, 3, 5), rescorer="//pretrained/facebook/musicgen-small",
    published_music={"//pretrained/facebook/magnet-small-10secs": _MUSIC,
                     "//pretrained/facebook/magnet-medium-10secs": {**_MUSIC, **_MEDIUM},
                     "//pretrained/facebook/magnet-small-30secs": {**_MUSIC, **_THIRTY},
                     "//pretrained/facebook/magnet-medium-30secs": {**_MUSIC, **_THIRTY, **_MEDIUM}},
    published_sound={"//pretrained/facebook/audio-magnet-small": _SOUND,
                     "//pretrained/facebook/audio-magnet-medium": {**_SOUND, **_MEDIUM}},
    sizes=({"model_scale": "small"}, {**_SHARDED, **ADAMW}),
    slurm={"small": {"gpus": 32}, "medium": {"gpus": 64}, "judge": {"gpus": 4}})

_SMALL = {"model_scale": "xsmall"}
_NUDGED = {"optim.epochs": 1, "optim.updates_per_epoch": 4, "optim.lr": 1e-5, "schedule.lr_scheduler": None}
_CPU = {"gpus": 0, "cpus_per_gpu": 1, "mem_per_gpu": 2, "time": 20, "array_parallelism": 2}

#: config/solver/magnet/tiny*.yaml: 400 clips rendered on first use, the bundled codec, a model of two layers, a minute or
#: two a job. What is trained so shortly plays no music: that scale shows that a grid runs, and what its report looks like.
#: The decoding grids start from the bundled models instead, which are larger and were trained for hours.
TINY = Scale(
    music={"solver": "magnet/tiny", **_SMALL}, sound={"solver": "magnet/tiny_sound", **_SMALL},
    medium={"model_scale": "tiny"}, thirty={"datasource.folk.duration": 10, "dataset.segment_duration": 10},
    parent={"solver": "magnet/tiny", "continue_from": "//bundled/magnet-16khz", **_NUDGED},
    hybrid={"solver": "magnet/tiny_hybrid", "continue_from": "//bundled/hybrid-16khz", **_NUDGED},
    judged={}, prompts=(0.5, 1, 2, 3), rescorer="//bundled/musicgen-16khz",
    published_music={"//bundled/magnet-16khz": {"solver": "magnet/tiny"},
                     "//bundled/hybrid-16khz": {"solver": "magnet/tiny_hybrid"}},
    published_sound={"//bundled/magnet-16khz": {"solver": "magnet/tiny_sound"}},
    sizes=(_SMALL, {"model_scale": "tiny"}),
    slurm={"small": _CPU, "medium": _CPU, "judge": _CPU})
