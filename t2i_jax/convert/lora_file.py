"""LoRA files of diffusers, and for Stable Diffusion 1, 2 and XL those of kohya's scripts."""

from pathlib import Path
from typing import Any

from t2i_jax.convert.diffusers_flow import FLOWS
from t2i_jax.core.family import parameter_shapes
from t2i_jax.core.files import atomic_path
from t2i_jax.families.load import load_family
from t2i_jax.families.stable_diffusion import make_net
from t2i_jax.models import sd_unet
from t2i_jax.models.clip import text_param_shapes
from t2i_jax.text.clip import make_tower
from t2i_jax.weights import clip as clip_weights
from t2i_jax.weights import lora
from t2i_jax.weights import sd_unet as unet_weights
from t2i_jax.weights.single_file import original_unet_layer
from t2i_jax.weights.stored import open_file, write_file

DIFFUSERS = "pytorch_lora_weights.safetensors"  # the name that diffusers looks for


def read_lora(path, config) -> dict[str, Any]:
    """Return the adapter in a file, for a model of this config.

    It is {"params": {"model": {"net"}}, "text": {text encoder}}, nested dicts with {"down", "up"}
    in the place of kernels; its scale is 1.
    Raises ValueError if the model is of another family, and as weights/lora.py does.
    """
    return lora.read(open_file(path), _layers(config), str(path))


def write_lora(adapter: Any, scale: float, config, path: Path) -> None:
    """Write an adapter, as `read_lora` returns it: in diffusers' format, or else in kohya's.

    path: a file of the name DIFFUSERS gets diffusers' format.
    Raises ValueError if the model is of another family, and for kohya's format of a family for
    which it is not known here.
    """
    kohya = path.name != DIFFUSERS
    if kohya and config.family == "flow_transformer":
        raise ValueError(
            f"LoRA files of family 'flow_transformer' are written in the format of diffusers "
            f"alone: name the file {DIFFUSERS}, not {path.name}"
        )
    arrays = lora.write(adapter, scale, _layers(config), kohya)
    with atomic_path(path) as part:
        write_file(part, arrays, {"format": "pt"})


def _layers(config) -> list[lora.Layer]:
    """Return all layers of the network that draws and of CLIP's text encoders."""
    if config.family not in NETWORKS:
        raise ValueError(
            f"there are no LoRA files of family {config.family!r}, only of "
            f"{' and '.join(map(repr, NETWORKS))}: name the folder of a run instead"
        )
    layers, towers = NETWORKS[config.family](config), config.text.towers
    for number, (part, fields) in enumerate(towers.items(), 1):
        kohya = "lora_te" if len(towers) == 1 else f"lora_te{number}"

        def of_tower(name: str, part=part, kohya=kohya) -> tuple[str, ...]:
            # Some versions of transformers leave out the first word.
            short = name.removeprefix("text_model.")
            return f"{part}.{name}", f"{kohya}_{_plain(name)}", f"{part}.{short}"

        shapes, place = text_param_shapes(make_tower(fields)[0]), clip_weights.text_published
        layers += lora.layers_of(shapes, place, ("text", part), of_tower)
    return layers


def _of_unet(config) -> list[lora.Layer]:
    net = make_net(config)

    def names(name: str) -> tuple[str, ...]:
        kohya = [f"lora_unet_{_plain(name)}"]
        kohya.append(f"lora_unet_{_plain(original_unet_layer(name, net))}")
        # kohya's scripts write the original names for Stable Diffusion XL alone.
        return (f"unet.{name}", *(reversed(kohya) if net.added_width else kohya))

    shapes, place = sd_unet.param_shapes(net), unet_weights.published(net)
    return lora.layers_of(shapes, place, PLACE, names)


def _of_transformer(config) -> list[lora.Layer]:
    flow = next(flow for flow in FLOWS.values() if flow.network == config.model.network)
    shapes: Any = parameter_shapes(config, load_family(config))
    net, place = shapes["model"]["net"], flow.weights.published
    return lora.layers_of(net, place, PLACE, lambda name: (f"transformer.{name}",))


PLACE = ("params", "model", "net")  # of the network that draws, in the tree of all
NETWORKS = {"stable_diffusion": _of_unet, "flow_transformer": _of_transformer}


def _plain(name: str) -> str:
    return name.replace(".", "_")
