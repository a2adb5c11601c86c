"""Names that the published transformers of Stable Diffusion 3 and FLUX.1 share (diffusers)."""

from t2i_jax.weights.published import Path, Published

LINEAR_OR_NORM = {"kernel": "weight", "bias": "bias", "scale": "weight"}
OUTSIDE = {
    "time_in": "time_text_embed.timestep_embedder.linear_1",
    "time_out": "time_text_embed.timestep_embedder.linear_2",
    "pooled_in": "time_text_embed.text_embedder.linear_1",
    "pooled_out": "time_text_embed.text_embedder.linear_2",
    "text_in": "context_embedder",
    "modulation_out": "norm_out.linear",
    "patch_out": "proj_out",
}
JOINT_BLOCK = {
    "picture_modulation": "norm1.linear",
    "picture_query": "attn.to_q",
    "picture_key": "attn.to_k",
    "picture_value": "attn.to_v",
    "picture_query_norm": "attn.norm_q",
    "picture_key_norm": "attn.norm_k",
    "picture_out": "attn.to_out.0",
    "picture_mlp_in": "ff.net.0.proj",
    "picture_mlp_out": "ff.net.2",
    "self_query": "attn2.to_q",
    "self_key": "attn2.to_k",
    "self_value": "attn2.to_v",
    "self_query_norm": "attn2.norm_q",
    "self_key_norm": "attn2.norm_k",
    "self_out": "attn2.to_out.0",
    "text_modulation": "norm1_context.linear",
    "text_query": "attn.add_q_proj",
    "text_key": "attn.add_k_proj",
    "text_value": "attn.add_v_proj",
    "text_query_norm": "attn.norm_added_q",
    "text_key_norm": "attn.norm_added_k",
    "text_out": "attn.to_add_out",
    "text_mlp_in": "ff_context.net.0.proj",
    "text_mlp_out": "ff_context.net.2",
}


def published_layer(
    path: Path, outside: dict[str, str], blocks: dict[str, tuple[str, dict[str, str]]]
) -> Published:
    """Return where a parameter of a layer is.

    outside: published names of the layers outside blocks, by ours.
    blocks: for each kind of block, as in "block_3", the published name of the list, and the names
        of the layers in a block.
    """
    module, *rest = path
    if module in outside:
        name = outside[module]
    else:
        kind, _, place = module.rpartition("_")
        at, layers = blocks[kind]
        name = f"{at}.{place}.{layers[rest[0]]}"
    layout = "linear" if path[-1] == "kernel" else "same"
    return Published(f"{name}.{LINEAR_OR_NORM[path[-1]]}", layout)
