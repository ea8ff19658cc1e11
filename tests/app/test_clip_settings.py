"""Settings of clips in files and tables."""
import inspect
import json
import typing as tp
from pathlib import Path

import numpy as np
import pytest
import soundfile

from magnet_plugin.app import clip_settings, clips


def test_settings_are_the_arguments_of_the_model() -> None:
    from magnet_plugin import MAGNeT
    signature = set(inspect.signature(MAGNeT.set_generation_params).parameters) - {"self", "others"}
    assert signature <= set(clip_settings.TYPES)


@pytest.mark.parametrize("changes", [
    {}, {"use_sampling": False, "temperature": 2.0, "duration": 1.5, "decoding_steps": [3, 1, 1, 1]},
    {"guidance_interval": (0.1, 0.9), "rescorer": "itself", "rescorer_weight": 0.4, "rescorer_stages": (0, 2),
     "extend_stride": 0.7}])
def test_recorded_settings_restore_the_model(changes: dict[str, tp.Any], release_folder: Path) -> None:
    from magnet_plugin import MAGNeT
    from magnet_plugin.models.settings import settings
    model = MAGNeT.get_pretrained(str(release_folder), device="cpu")
    if "rescorer" in changes:
        changes = {**changes, "rescorer": str(release_folder)}
    model.set_generation_params(**changes)
    recorded = json.loads(json.dumps(settings(model), default=float))
    model.set_generation_params(top_p=0.1)
    model.set_generation_params(**clip_settings.arguments_of(recorded))
    assert json.loads(json.dumps(settings(model), default=float)) == recorded
    assert recorded["use_sampling"] == changes.get("use_sampling", True)


def test_settings_of_prompts_are_restored_only_where_there_is_a_prompt() -> None:
    recorded = {"prompt_duration": 1.0, "prompt_frames": 50, "prompt_model": "x",
                "prompt_options": {"cfg_coef": 2.0, "temp": 0.9, "top_k": 5}}
    assert clip_settings.arguments_of(recorded) == {
        "prompt_duration": 1.0, "prompt_model": "x", "prompt_cfg_coef": 2.0, "prompt_temperature": 0.9, "prompt_top_k": 5}
    none = {"prompt_duration": 0.0, "prompt_frames": 0, "prompt_cfg_coef": 3.0, "rescorer": None, "rescorer_weight": 1.0}
    assert clip_settings.arguments_of(none) == {"prompt_duration": 0.0}


@pytest.mark.parametrize("name, text, said", [
    ("top_k", "2.5", "top_k='2.5' must be a whole number"), ("top_p", "x", "must be a number"),
    ("anneal_temp", "yes", "must be true or false"), ("decoding_steps", "20;10", "numbers, such as"),
    ("temprature", "1", "did you mean temperature")])
def test_wrong_settings_are_named(name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        clip_settings.parse(name, text)


def test_settings_are_checked_without_a_model() -> None:
    clip_settings.check({"temperature": 2.0, "duration": 9.0, "rescorer": "x", "decoding_steps": [3, 1]})
    for wrong, said in (({"temperature": -1.0}, "temperature=-1.0"), ({"duration": 0.0}, "duration=0.0"),
                        ({"seeed": 1}, "no setting 'seeed'")):
        with pytest.raises(ValueError, match=said):
            clip_settings.check(wrong)


@pytest.mark.parametrize("suffix", clips.FORMATS)
def test_metadata_is_read_from_the_audio_or_the_json_file(suffix: str, tmp_path: Path) -> None:
    path, metadata = tmp_path / f"x{suffix}", {"text": 'ein "Stück"\n', "seed": 2 ** 62, "settings": {"temp": 2.5}}
    clips.save_clip(path, np.zeros((2, 16000)), 16000, metadata)
    beside, alone = path.with_suffix(".json"), tmp_path / f"alone{suffix}"
    path.rename(alone)
    alone.with_suffix(".json").write_text('{"settings": {}}')             # of another clip; the audio file has its own
    assert clip_settings.read_metadata(alone) == clip_settings.read_metadata(beside) == {**metadata, "gain": 1.0}


def test_files_without_settings(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "bare.wav", np.zeros(100), 8000)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "none.json").write_text('{"text": "a reel"}')
    (tmp_path / "text.wav").write_text("no audio")
    soundfile.write(tmp_path / "beside.wav", np.zeros(100), 8000)
    (tmp_path / "beside.json").write_text('{"settings": {"temp": 2.0}}')
    assert clip_settings.read_metadata(tmp_path / "beside.wav") == {"settings": {"temp": 2.0}}
    for name in ("bare.wav", "list.json", "none.json", "text.wav"):
        with pytest.raises(ValueError, match=f"{name} holds no settings of a clip"):
            clip_settings.read_metadata(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        clip_settings.read_metadata(tmp_path / "missing.wav")
