"""Weights of untrained models, changed so that tests can tell outputs apart. Imports no model."""
import typing as tp


def scale_weights(model: tp.Any, scale: float = 6.0, biases: bool = False,
                  prefixes: tuple[str, ...] = ("transformer", "emb")) -> tp.Any:
    """Multiply the matrices of an untrained model, so that its outputs depend on its inputs by more than rounding.

    Args:
        model: changed in place.
        scale: the factor.
        biases: draw all biases from a normal distribution, so that they matter.
        prefixes: beginnings of the names of the parameters to scale.
    Returns:
        The model.
    """
    import torch
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(prefixes) and parameter.dim() > 1:
                parameter.mul_(scale)
            elif biases and name.endswith("bias"):
                parameter.normal_()
    return model
