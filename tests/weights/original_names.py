"""Names of arrays in the original files of Stable Diffusion, as those programs build their modules.

Each function of names returns them without the prefix of a whole file.
"""

import numpy as np

from t2i_jax.weights import autoencoder_kl, clip, sd_unet, single_file
from t2i_jax.weights.published import write_arrays


def both(*layers):
    return [f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")]


def unet_names(net):
    """The U-Net of latent diffusion, openaimodel.py and attention.py."""

    def residual(at, skip):
        layers = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"]
        return both(*(f"{at}.{x}" for x in layers + ["skip_connection"] * skip))

    def transformer(at, depth):
        names = both(f"{at}.norm", f"{at}.proj_in", f"{at}.proj_out") if depth else []
        for i in range(depth):
            block = f"{at}.transformer_blocks.{i}"
            layers = ["attn1.to_out.0", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"]
            names += both(*(f"{block}.{x}" for x in [*layers, "norm1", "norm2", "norm3"]))
            inputs = [f"attn{a}.to_{x}" for a in (1, 2) for x in "qkv"]
            names += [f"{block}.{x}.weight" for x in inputs]
        return names

    names = both("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2")
    names += both("label_emb.0.0", "label_emb.0.2") if net.added_width else []
    number, before, levels = 1, net.channels[0], len(net.channels)
    for level, channels in enumerate(net.channels):
        for _ in range(net.blocks):
            names += residual(f"input_blocks.{number}.0", before != channels)
            names += transformer(f"input_blocks.{number}.1", net.depths[level])
            number, before = number + 1, channels
        if level < levels - 1:
            names += both(f"input_blocks.{number}.0.op")
            number += 1
    for i in (0, 2):
        names += residual(f"middle_block.{i}", False)
    names += transformer("middle_block.1", net.middle_depth)
    number = 0
    for level in reversed(range(levels)):
        for i in range(net.blocks + 1):
            names += residual(f"output_blocks.{number}.0", True)
            names += transformer(f"output_blocks.{number}.1", net.depths[level])
            if level and i == net.blocks:
                place = 2 if net.depths[level] else 1
                names += both(f"output_blocks.{number}.{place}.conv")
            number += 1
    return names


def autoencoder_names(net):
    """The autoencoder of latent diffusion, model.py."""

    def residual(at, skip):
        layers = ["norm1", "conv1", "norm2", "conv2", *["nin_shortcut"] * skip]
        return both(*(f"{at}.{x}" for x in layers))

    names = both("quant_conv", "post_quant_conv")
    widths = list(net.multipliers)
    for half in ("encoder", "decoder"):
        names += both(*(f"{half}.{x}" for x in ("conv_in", "norm_out", "conv_out")))
        names += both(*(f"{half}.mid.attn_1.{x}" for x in ("norm", "q", "k", "v", "proj_out")))
        down = half == "encoder"
        order = list(enumerate(widths)) if down else list(enumerate(widths))[::-1]
        before = widths[0] if down else widths[-1]
        for i in (1, 2):
            names += residual(f"{half}.mid.block_{i}", False)
        for level, width in order:
            way = "down" if down else "up"
            for i in range(net.blocks + (not down)):
                names += residual(f"{half}.{way}.{level}.block.{i}", before != width)
                before = width
            if level < len(widths) - 1 if down else level > 0:
                names += both(f"{half}.{way}.{level}.{way}sample.conv")
    return names


def open_clip_names(depth):
    """open_clip, the text part of its CLIP."""
    names = ["positional_embedding", "token_embedding.weight", "text_projection", "logit_scale"]
    names += both("ln_final")
    for i in range(depth):
        at = f"transformer.resblocks.{i}"
        names += [f"{at}.attn.in_proj_weight", f"{at}.attn.in_proj_bias"]
        layers = ["attn.out_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"]
        names += both(*(f"{at}.{x}" for x in layers))
    return names


def original_arrays(variant, nets, params):
    """Our parameters as the arrays of a whole file.

    variant: of single_file.ENCODERS. nets, params: of "unet", "vae" and each text encoder.
    """
    arrays = {}

    def put(prefix, names, sources_of, written):
        """Add arrays whose sources are split, transposed or squeezed to what is `written`."""
        sources = sources_of({f"{prefix}{name}": name for name in names})
        for name, (stored, _) in sources.items():
            array = written.pop(name)
            if stored.endswith("text_projection"):
                array = array.T
            elif ".attn_1." in stored and array.ndim == 2:
                array = array[:, :, None, None]
            earlier = [arrays[stored]] if "in_proj" in stored and stored in arrays else []
            arrays[stored] = np.concatenate([*earlier, array])
        assert not written

    put(
        single_file.UNET,
        unet_names(nets["unet"]),
        single_file.unet_sources,
        write_arrays(params["unet"], sd_unet.published(nets["unet"])),
    )
    put(
        single_file.AUTOENCODER,
        autoencoder_names(nets["vae"]),
        single_file.autoencoder_sources,
        write_arrays(params["vae"], autoencoder_kl.published(nets["vae"])),
    )
    for name, (_, prefix) in single_file.ENCODERS[variant].items():
        net, written = nets[name], write_arrays(params[name], clip.text_published)
        if prefix.endswith(single_file.CLIP_L):
            arrays |= {f"{prefix}{key}": array for key, array in written.items()}
            ids = f"{prefix}text_model.embeddings.position_ids"
            arrays[ids] = np.arange(net.length)[None]
        else:
            put(prefix, open_clip_names(net.depth), single_file.open_clip_sources, written)
            arrays[f"{prefix}logit_scale"] = np.ones(())
    return arrays
