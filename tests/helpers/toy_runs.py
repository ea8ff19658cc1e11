"""The folder of a run, as a training of the untrained release folder would leave it behind."""
import json
from pathlib import Path

import torch
from omegaconf import OmegaConf

from magnet_plugin.data.manifests import entry, write_manifest
from magnet_plugin.models import checkpoints

from .toy_grids import epoch


def write_run(root: Path, release: Path, label: str = "mine", epochs: int = 3) -> Path:
    """Write the run to Dora's folder `root`, and the manifests of its data next to it.

    Args:
        root: Dora's folder.
        release: release folder with the weights.
        label: name of the run.
        epochs: number of epochs that it has completed, of three.
    """
    folder = root / "xps" / "0a1b2c3d"
    (folder / ".hydra").mkdir(parents=True)
    package = checkpoints.load(release / checkpoints.LM_FILE)
    cfg = OmegaConf.create(package["xp.cfg"])
    cfg.compression_model_checkpoint, cfg.label, cfg.optim.epochs, cfg.optim.updates_per_epoch = str(release), label, 3, 5
    for split, clips in (("train", 3), ("valid", 1)):
        lines = [entry(root / f"{number}.wav", 30.0, 16000) for number in range(clips)]
        cfg.datasource[split] = str(write_manifest(root / "data" / split, lines))
    history = [epoch(ce) for ce in (5.0, 3.0, 4.0)[:epochs]]
    torch.save({"best_state": {"model": package["best_state"]}, "xp.cfg": cfg, "history": history}, folder / "checkpoint.th")
    (folder / "history.json").write_text(json.dumps(history))
    (folder / ".argv.json").write_text(json.dumps(["solver=magnet/debug", f"datasource.train={root}/data/train",
                                                   f"label={label}", "optim.epochs=3"]))
    (folder / ".hydra" / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    (folder / "machine.json").write_text(json.dumps({"measured_on": "A Chip", "cores": 2, "torch": "2.9"}))
    (folder / "solver.log.0").write_text("started\n")
    return folder
