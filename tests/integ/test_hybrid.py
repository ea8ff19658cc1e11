"""A real run of a hybrid model: train, sample, load by signature, export."""
import json
from pathlib import Path

import pytest

from ..helpers import forked
from .runs import environment, history

pytestmark = pytest.mark.integ
TINY = ["solver=magnet/hybrid", "dset=audio/example", "model_scale=xsmall", "num_threads=1", "dataset.num_workers=0",
        "dataset.batch_size=4", "dataset.segment_duration=2", "dataset.valid.num_samples=16",
        "dataset.evaluate.num_samples=4", "dataset.evaluate.batch_size=4", "dataset.generate.num_samples=2",
        "dataset.generate.batch_size=2", "optim.epochs=2", "optim.updates_per_epoch=8", "schedule.lr_scheduler=null",
        "generate.lm.decoding_steps=[4,2,2,2]", "hybrid.prompt.duration=0.5"]


def export(sig: str, folder: Path) -> None:
    from magnet_plugin import MAGNeT
    from magnet_plugin.models import checkpoints
    out = checkpoints.export(f"//sig/{sig}", folder)
    models = [MAGNeT.get_pretrained(name, device="cpu") for name in (f"//sig/{sig}", str(out))]
    assert all(type(model.lm).__name__ == "HybridMagnetLMModel" for model in models)
    for model in models:
        model.set_generation_params(prompt_duration=0.5, decoding_steps=[3, 2, 2, 2])
    one, two = (model.generate(["a reel"], seed=1) for model in models)
    assert one.equal(two) and one.shape == (1, 1, 32000)


def test_a_hybrid_run_trains_samples_loads_and_exports(tmp_path: Path) -> None:
    env = environment(tmp_path)
    forked.dora("run", *TINY, env=env)
    [sig] = [path.name for path in (tmp_path / "runs" / "xps").iterdir()]
    epochs = history(tmp_path, sig)
    assert len(epochs) == 2 and epochs[1]["train"]["ce"] < epochs[0]["train"]["ce"]
    assert {"ce", "ce_prompt", "ce_q1", "ce_q2", "ce_q3", "ce_q4"} <= set(epochs[0]["valid"])
    assert epochs[1]["valid"]["ce_prompt"] < epochs[0]["valid"]["ce_prompt"]
    samples = list((tmp_path / "runs" / "xps" / sig / "samples").glob("2/*.json"))
    assert len(samples) == 2
    assert json.loads(samples[0].read_text())["generation_args"]["prompt_frames"] == 25
    forked.call(forked.with_dora_dir, export, sig, tmp_path / "out", env=env)
