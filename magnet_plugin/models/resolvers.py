"""The functions that configs of this plugin call, such as `${magnet.device:}` and `${magnet.default:temp}`."""
import dataclasses

from omegaconf import OmegaConf

from .. import environment
from ..decoding.options import GenerationOptions, PromptOptions


def register_resolvers() -> None:
    """Make these functions known to OmegaConf: those of `environment`, and one for each default of decoding."""
    environment.register_resolvers()
    for resolver, options in (("magnet.default", GenerationOptions()), ("magnet.prompt_default", PromptOptions())):
        values = dataclasses.asdict(options)
        OmegaConf.register_new_resolver(
            resolver, lambda name, values=values: list(values[name]) if isinstance(values[name], tuple) else values[name],
            replace=True)
