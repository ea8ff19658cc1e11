"""The two scales that every grid can run at: the paper's, and one for two CPU cores."""
import dataclasses
import typing as tp

Job = tp.Mapping[str, tp.Any]     # setting -> value, as Dora's launcher takes them


@dataclasses.dataclass(frozen=True)
class Scale:
    """The settings behind the names that grids use.

    Args:
        music: Text to music, the small model on segments of 10 s.
        sound: Text to sound, the small model.
        medium: Turns the small model into the medium one.
        thirty: Turns segments of 10 s into segments of 30 s.
        parent: Training of the MAGNeT that decoding grids evaluate.
        hybrid: Training of the Hybrid-MAGNeT that they evaluate.
        evaluation: Settings of all jobs that only evaluate.
        prompt_durations: Seconds that a hybrid model generates autoregressively.
        rescorer: An autoregressive model on the codec of `parent`.
        published_music: Name of a released model -> settings that it was trained with.
        published_sound: The same for sound.
        sizes: Model sizes that `ablate_scale` trains.
        slurm: Fields of Dora's SlurmConfig that a training requests, by model size, and those of an evaluation
            (`evaluate`).
    """
    music: Job
    sound: Job
    medium: Job
    thirty: Job
    parent: Job
    hybrid: Job
    evaluation: Job
    prompt_durations: tp.Sequence[float]
    rescorer: str
    published_music: tp.Mapping[str, Job]
    published_sound: tp.Mapping[str, Job]
    sizes: tp.Sequence[Job]
    slurm: tp.Mapping[str, tp.Mapping[str, tp.Any]]


ADAMW = {"optim.optimizer": "adamw", "optim.lr": 1e-4}       # of the medium music models
_MEDIUM = {"model_scale": "medium"}
_SHARDED = {**_MEDIUM, "autocast": False, "fsdp.use": True, "dataset.evaluate.batch_size": 64}     # one clip per GPU
_MUSIC = {"solver": "magnet/magnet_32khz", "dataset.segment_duration": 10, "dataset.batch_size": 576,
          "generate.lm.decoding_steps": [20, 10, 10, 10]}
_THIRTY = {"dataset.segment_duration": 30, "dataset.batch_size": 192, "generate.lm.decoding_steps": [60, 10, 10, 10]}
_SOUND = {"solver": "magnet/audio_magnet_16khz"}

#: The published recipes. Jobs that only evaluate are not sharded: the medium model fits on one GPU.
#: You provide the data: MAGNET_GRID_OVERRIDES="datasource.train=... datasource.valid=... ...".
PAPER = Scale(
    music=_MUSIC, sound=_SOUND, medium=_SHARDED, thirty=_THIRTY,
    parent=_MUSIC, hybrid={**_MUSIC, "solver": "magnet/hybrid_32khz"},
    evaluation={"solver/musicgen/evaluation": "objective_eval", "dataset.evaluate.batch_size": 128},
    prompt_durations=(0.5, 1, 2, 3, 5), rescorer="//pretrained/facebook/musicgen-small",
    published_music={"//pretrained/facebook/magnet-small-10secs": _MUSIC,
                     "//pretrained/facebook/magnet-medium-10secs": {**_MUSIC, **_MEDIUM},
                     "//pretrained/facebook/magnet-small-30secs": {**_MUSIC, **_THIRTY},
                     "//pretrained/facebook/magnet-medium-30secs": {**_MUSIC, **_THIRTY, **_MEDIUM}},
    published_sound={"//pretrained/facebook/audio-magnet-small": _SOUND,
                     "//pretrained/facebook/audio-magnet-medium": {**_SOUND, **_MEDIUM}},
    sizes=({"model_scale": "small"}, {**_SHARDED, **ADAMW}),
    slurm={"small": {"gpus": 32}, "medium": {"gpus": 64}, "evaluate": {"gpus": 4}})

_SMALL = {"model_scale": "xsmall"}
_BRIEFLY = {"optim.epochs": 1, "optim.updates_per_epoch": 4, "optim.lr": 1e-5, "schedule.lr_scheduler": None}
_CPU = {"gpus": 0, "cpus_per_gpu": 1, "mem_per_gpu": 2, "time": 20, "array_parallelism": 2}

#: config/solver/magnet/tiny*.yaml: 400 clips rendered on first use, the bundled codec, a model of two layers, one or two
#: minutes per job. Models trained this briefly do not produce music; the scale shows that a grid runs and what its report
#: looks like. Decoding grids start from the bundled models, which are larger and were trained for longer.
TINY = Scale(
    music={"solver": "magnet/tiny", **_SMALL}, sound={"solver": "magnet/tiny_sound", **_SMALL},
    medium={"model_scale": "tiny"}, thirty={"datasource.folk.duration": 10, "dataset.segment_duration": 10},
    parent={"solver": "magnet/tiny", "continue_from": "//bundled/magnet-16khz", **_BRIEFLY},
    hybrid={"solver": "magnet/tiny_hybrid", "continue_from": "//bundled/hybrid-16khz", **_BRIEFLY},
    evaluation={}, prompt_durations=(0.5, 1, 2, 3), rescorer="//bundled/musicgen-16khz",
    published_music={"//bundled/magnet-16khz": {"solver": "magnet/tiny"},
                     "//bundled/hybrid-16khz": {"solver": "magnet/tiny_hybrid"}},
    published_sound={"//bundled/magnet-16khz": {"solver": "magnet/tiny_sound"}},
    sizes=(_SMALL, {"model_scale": "tiny"}),
    slurm={"small": _CPU, "medium": _CPU, "evaluate": _CPU})
