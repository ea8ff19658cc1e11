"""What a job requests from SLURM.

Sources, in increasing priority: the `slurm` section of config.yaml, the `slurm` section of the team's file (config/teams),
the grid, MAGNET_SLURM_FIELD environment variables, and Dora's own command-line options (`-g`, `-p`, ...).
"""
import dataclasses
import os
import typing as tp

from dora.conf import SlurmConfig
from omegaconf import OmegaConf
from omegaconf.errors import ValidationError

PREFIX = "MAGNET_SLURM_"


@dataclasses.dataclass
class SlurmSettings(SlurmConfig):
    """The fields of Dora's SlurmConfig, which documents them, with types and defaults that fit any cluster."""
    partition: tp.Optional[str] = None      # type: ignore[assignment]  # Dora's default is a partition of Meta's cluster
    constraint: tp.Optional[str] = None     # type: ignore[assignment]  # Dora's default writes an empty --constraint
    mem_per_gpu: int = 40                   # GB; sbatch, to which Dora passes it unchanged, rejects fractions


TYPES = tp.get_type_hints(SlurmSettings)


def assign(settings: tp.Any, field: str, value: tp.Any, source: str) -> None:
    """Set one field of a structured SlurmSettings, converting the value to the field's type.

    Args:
        settings: `OmegaConf.structured(SlurmSettings)`.
        field: Name of the field.
        value: Its new value; text is converted.
        source: The assignment as its author wrote it, for error messages.
    Raises:
        ValueError: There is no such field, or the value has the wrong type.
    """
    if field not in TYPES:
        raise ValueError(f"{source}: there is no SLURM field {field!r}. Use one of {', '.join(TYPES)} (as an environment "
                         f"variable: {PREFIX}PARTITION and so on)")
    try:
        settings[field] = value
    except ValidationError as error:
        kind = TYPES[field]
        name = str(kind).replace("typing.", "") if tp.get_args(kind) else kind.__name__
        raise ValueError(f"{source} is not valid: {field} takes a value of type {name}. Correct or remove it") from error


def parse_variable(field: str, text: str) -> tp.Any:
    """Convert the text of MAGNET_SLURM_FIELD for `assign`: `;` separates the items of a list; empty or `null` is None.

    >>> parse_variable("setup", "module load cuda; source env"), parse_variable("qos", "")
    (['module load cuda', 'source env'], None)
    """
    kind = TYPES.get(field)
    if text in ("", "null") and tp.get_origin(kind) is not list:
        return None                                     # which `assign` refuses where a value is required
    if any(tp.get_origin(option) is list for option in (kind, *tp.get_args(kind))):
        return [part.strip() for part in text.split(";") if part.strip()]
    return text


def from_environment(environ: tp.Optional[tp.Mapping[str, str]] = None) -> dict[str, tp.Any]:
    """Read the fields that MAGNET_SLURM_FIELD variables set.

    Args:
        environ: Replaces the environment of the process.
    Raises:
        ValueError: See `assign`.
    """
    environ = os.environ if environ is None else environ
    settings, fields = OmegaConf.structured(SlurmSettings), []
    for name, text in sorted(environ.items()):
        if name.startswith(PREFIX):
            field = name.removeprefix(PREFIX).lower()
            assign(settings, field, parse_variable(field, text), f"{name}={text!r}")
            fields.append(field)
    return {field: settings[field] for field in fields}


def slurm_settings(*layers: tp.Mapping[str, tp.Any], environ: tp.Optional[tp.Mapping[str, str]] = None) -> SlurmSettings:
    """Combine the sources that apply to every job; grids and the command line may change the result.

    Args:
        layers: The `slurm` sections of config.yaml and of the team's file, in increasing priority.
        environ: Replaces the environment of the process, which has priority over all layers.
    Raises:
        ValueError: See `assign`.
    """
    settings = OmegaConf.structured(SlurmSettings)
    for layer in layers:
        for field, value in layer.items():
            assign(settings, field, value, f"slurm.{field}={value!r}")
    return tp.cast(SlurmSettings, OmegaConf.to_object(OmegaConf.merge(settings, from_environment(environ))))


def set_master_port(environ: tp.MutableMapping[str, str] = os.environ) -> None:
    """In a SLURM job, choose the port on which ranks meet (MASTER_PORT) from the job's id, unless it is already set.

    Dora picks a port up to 60000. Ports above 32767 may be in use by any outgoing connection (Linux,
    ip_local_port_range), and the job then fails with EADDRINUSE. Jobs that run at the same time have ids close to each
    other, so no two of them get the same port. Unnecessary once Dora (0.1.13) chooses its port below that range.
    """
    if environ.get("SLURM_JOB_ID", "").isdecimal():
        environ.setdefault("MASTER_PORT", str(20000 + int(environ["SLURM_JOB_ID"]) % 12000))
