"""A real run of a hybrid model: train, sample, load by signature, export."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

from .runs import dora, environment, history

pytestmark = pytest.mark.integ
TINY = ["solver=magnet/hybrid", "dset=audio/example", "model_scale=xsmall", "num_threads=1", "dataset.num_workers=0",
        "dataset.batch_size=4", "dataset.segment_duration=2", "dataset.valid.num_samples=16",
        "dataset.evaluate.num_samples=4", "dataset.evaluate.batch_size=4", "dataset.generate.num_samples=2",
        "dataset.generate.batch_size=2", "optim.epochs=2", "optim.updates_per_epoch=8", "schedule.lr_scheduler=null",
        "generate.lm.decoding_steps=[4,2,2,2]", "hybrid.prompt.duration=0.5"]


def test_train_sample_load_and_export(tmp_path: Path) -> None:
    dora(tmp_path, "run", *TINY)
    [sig] = [path.name for path in (tmp_path / "runs" / "xps").iterdir()]
    epochs = history(tmp_path, sig)
    assert len(epochs) == 2 and epochs[1]["train"]["ce"] < epochs[0]["train"]["ce"]
    assert {"ce", "ce_prompt", "ce_q1", "ce_q2", "ce_q3", "ce_q4"} <= set(epochs[0]["valid"])
    assert epochs[1]["valid"]["ce_prompt"] < epochs[0]["valid"]["ce_prompt"]
    samples = list((tmp_path / "runs" / "xps" / sig / "samples").glob("2/*.json"))
    assert len(samples) == 2
    assert json.loads(samples[0].read_text())["generation_args"]["prompt_frames"] == 25
    code = ("import magnet_plugin; magnet_plugin.register()\n"
            "from magnet_plugin import MAGNeT, checkpoints\n"
            f"out = checkpoints.export('//sig/{sig}', {str(tmp_path / 'out')!r})\n"
            f"models = [MAGNeT.get_pretrained(name, device='cpu') for name in ('//sig/{sig}', str(out))]\n"
            "assert all(type(model.lm).__name__ == 'HybridMagnetLMModel' for model in models)\n"
            "for model in models:\n"
            "    model.set_generation_params(prompt_duration=0.5, decoding_steps=[3, 2, 2, 2])\n"
            "one, two = (model.generate(['a reel'], seed=1) for model in models)\n"
            "assert one.equal(two), 'the exported model is the one of the run'\n"
            "print(one.shape)")
    done = subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "torch.Size([1, 1, 32000])" in done.stdout
