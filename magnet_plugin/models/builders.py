"""Build models and options from a config. Derived values go into copies; a config is never changed."""
import copy
import typing as tp

import torch
from audiocraft.models import builders as upstream
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningProvider
from audiocraft.utils.utils import dict_from_config
from omegaconf import DictConfig, OmegaConf

from ..decoding.options import GenerationOptions, PromptOptions, default_steps
from ..decoding.rescoring_options import weight_of
from ..distributed.fsdp import Sharding
from .conditioners import WordsConditioner
from .generation import frames
from .lm_hybrid import HybridMagnetLMModel
from .stft_codec import STFTDecoder, STFTEncoder

MAGNET_LM, HYBRID_LM = "transformer_lm_magnet", "transformer_lm_hybrid_magnet"
# Kept here because register() replaces them.
_upstream_lm_model = upstream.get_lm_model
_upstream_provider = upstream.get_conditioner_provider
_upstream_autoencoder = upstream.get_encodec_autoencoder


def get_lm_model(cfg: DictConfig) -> LMModel:
    """Build a language model as AudioCraft's `get_lm_model` does; MAGNeT and hybrid configs give this plugin's classes."""
    if is_hybrid(cfg):
        return get_hybrid(cfg)
    if cfg.lm_model != MAGNET_LM:
        return _upstream_lm_model(cfg)
    return _upstream_lm_model(derive_magnet(cfg))


def is_hybrid(cfg: DictConfig) -> bool:
    """Whether a config describes a hybrid model.

    AudioCraft's unreleased branch names the solver `hybrid_magnet` and the model `transformer_lm_magnet`.
    """
    lm_model = str(cfg.get("lm_model"))
    return "hybrid" in lm_model or (lm_model == MAGNET_LM and "hybrid" in str(cfg.get("solver")))


def get_hybrid(cfg: DictConfig) -> HybridMagnetLMModel:
    """Build a hybrid model. Its config has the keys of a MAGNeT's and a delay pattern.

    Raises:
        ValueError: `transformer_lm` has an unknown or invalid setting.
    """
    cfg = derive_magnet(cfg)
    kwargs = dict_from_config(cfg.transformer_lm)
    kwargs.pop("q_modeling", None)                              # A key of old configs; the pattern replaces it.
    fuser = upstream.get_condition_fuser(cfg)
    if fuser.fuse2cond["cross"]:
        kwargs["cross_attention"] = True
    guidance = cfg.classifier_free_guidance
    pattern = upstream.get_codebooks_pattern_provider(kwargs["n_q"], cfg.codebooks_pattern)
    provider = get_conditioner_provider(kwargs["dim"], cfg).to(cfg.device)
    try:
        model = HybridMagnetLMModel(
            pattern_provider=pattern, condition_provider=provider, fuser=fuser, cfg_dropout=guidance.training_dropout,
            cfg_coef=guidance.inference_coef, attribute_dropout=dict_from_config(cfg.attribute_dropout),
            dtype=getattr(torch, cfg.dtype), device=cfg.device, **kwargs)
    except TypeError as error:
        raise ValueError(f"transformer_lm has an unsupported setting ({error}); remove it from the "
                         "config, or load the model with the code that trained it") from error
    return model.to(cfg.device)


def derive_magnet(cfg: DictConfig) -> DictConfig:
    """Copy `cfg` and complete its `transformer_lm` with arguments of `MagnetLMModel`.

    Published configs have a segment duration of 0 and a span length of -1 there; both are set elsewhere in the config.
    """
    cfg = copy.deepcopy(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.transformer_lm.segment_duration = cfg.dataset.segment_duration
    cfg.transformer_lm.span_len = cfg.masking.span_len
    cfg.transformer_lm.attention_backend = cfg.get("efficient_attention_backend", "auto")
    return cfg


def get_conditioner_provider(output_dim: int, cfg: DictConfig) -> ConditioningProvider:
    """Build conditioners as AudioCraft's `get_conditioner_provider` does, and those with `model: words`."""
    ours = {name: conf for name, conf in (cfg.conditioners or {}).items()
            if name != "args" and conf.model == "words"}
    if not ours:
        return _upstream_provider(output_dim, cfg)
    rest = copy.deepcopy(cfg)
    OmegaConf.set_struct(rest, False)
    for name in ours:
        del rest.conditioners[name]
    provider = _upstream_provider(output_dim, rest)
    for name, conf in ours.items():
        provider.conditioners[name] = WordsConditioner(output_dim, **conf.words).to(cfg.device)
    return provider


def get_encodec_autoencoder(name: str, cfg: DictConfig) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Build a codec's encoder and decoder as AudioCraft's function does; `stft` gives the plugin's, configured by `stft`."""
    if name != "stft":
        return _upstream_autoencoder(name, cfg)
    shared = dict_from_config(cfg.stft)
    encoder, decoder = shared.pop("encoder"), shared.pop("decoder")
    return STFTEncoder(**shared, **encoder), STFTDecoder(**shared, **decoder)


def get_generation_options(cfg: DictConfig) -> GenerationOptions:
    """Read the decoding options from `generate.lm` of a config.

    `null` means the default of `rescorer_weight`, and that of `decoding_steps` for the model's number of codebooks.
    """
    lm = cfg.generate.lm
    fields = {name: lm[name] for name in GenerationOptions.__dataclass_fields__ if name in lm}
    if lm.get("decoding_steps") is None:
        fields["decoding_steps"] = list(default_steps(cfg.transformer_lm.n_q))
    fields["rescorer_weight"] = weight_of(lm.get("rescorer_weight"), lm.get("rescorer"))
    return GenerationOptions(**OmegaConf.to_container(OmegaConf.create(fields), resolve=True))  # type: ignore[arg-type]


def get_prompt_options(cfg: DictConfig) -> PromptOptions:
    """Read the options of autoregressive frames from `hybrid.prompt` of a hybrid model's config."""
    prompt = cfg.hybrid.prompt
    return PromptOptions(frames(prompt.duration, cfg.transformer_lm.compression_model_framerate), prompt.cfg_coef,
                         prompt.temperature, prompt.top_k)


def get_sharding(cfg: DictConfig) -> tp.Optional[Sharding]:
    """Read and validate `fsdp` of a config; None without FSDP.

    Raises:
        ValueError: a setting is incompatible with FSDP.
    """
    if not cfg.fsdp.use:
        return None
    conflicts = {"autocast=true": (cfg.autocast, "fsdp.param_dtype replaces it; set autocast=false"),
              f"dtype={cfg.dtype}": (cfg.dtype != "float32", "the optimizer's weights are float32; set dtype=float32 and "
                                     "fsdp.param_dtype"),
              "optim.optimizer=dadam": (cfg.optim.optimizer == "dadam", "D-Adaptation needs unsharded tensors; set "
                                        "optim.optimizer=adamw and optim.lr=1e-4"),
              f"optim.compile={cfg.optim.compile}": (cfg.optim.compile, "layers that gather their weights are not compiled; "
                                                     "set optim.compile=null")}
    wrong = [f"{name}: {why}" for name, (present, why) in conflicts.items() if present]
    if wrong:
        raise ValueError("fsdp.use=true is incompatible with " + "; and with ".join(wrong))
    return Sharding(**{str(name): value for name, value in cfg.fsdp.items() if name != "use"})


def codec_mismatches(cfg: DictConfig, codec: tp.Any) -> list[str]:
    """List what in `cfg` does not fit the codec, one line for each setting to change; empty if everything fits."""
    lm = cfg.transformer_lm
    pairs = [("sample_rate", cfg.sample_rate, codec.sample_rate),
             ("channels", cfg.channels, codec.channels),
             ("transformer_lm.card", lm.card, codec.cardinality),
             ("transformer_lm.n_q", lm.n_q, codec.num_codebooks)]
    if "compression_model_framerate" in lm:
        pairs.append(("transformer_lm.compression_model_framerate", lm.compression_model_framerate, codec.frame_rate))
    return [f"{name}={ours}, but the codec has {theirs}: set {name}={theirs}"
            for name, ours, theirs in pairs if ours != theirs]


def for_inference(cfg: DictConfig, device: tp.Union[str, torch.device]) -> DictConfig:
    """Copy a trained model's config and prepare it for inference on `device`: float16 on CUDA, float32 elsewhere.

    The attention backend of the training machine is dropped; kernels are chosen for this machine.
    """
    cfg = copy.deepcopy(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.device = str(device)
    cfg.dtype = "float16" if torch.device(device).type == "cuda" else "float32"
    cfg.efficient_attention_backend = "auto"
    args = (cfg.get("conditioners") or {}).get("args")
    for name in ("merge_text_conditions_p", "drop_desc_p"):       # Settings of data sets; the provider rejects them.
        if args and name in args:
            del args[name]
    return cfg
