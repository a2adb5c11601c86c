"""Every field of a network that a config can set has a meaning in the docstring of its class."""

import pytest

from t2i_jax.core.fields import module_fields
from t2i_jax.models import dcgan, mlp_gan, stylegan2, transformer, vae, vqgan
from t2i_jax.models.autoencoder_kl import AutoencoderKL
from t2i_jax.models.clip import TextTower
from t2i_jax.models.dit import DiT
from t2i_jax.models.masked_transformer import MaskedTransformer
from t2i_jax.models.next_scale import NextScale
from t2i_jax.models.patch_discriminator import PatchDiscriminator
from t2i_jax.models.prefix_decoder import PrefixDecoder
from t2i_jax.models.sd_unet import UNet2DConditionModel
from t2i_jax.models.unet import UNet
from t2i_jax.models.word_decoder import WordDecoder

NETWORKS = (
    DiT,
    UNet,
    PrefixDecoder,
    transformer.Transformer,
    transformer.Block,
    MaskedTransformer,
    NextScale,
    WordDecoder,
    dcgan.Generator,
    dcgan.Discriminator,
    mlp_gan.Generator,
    mlp_gan.Discriminator,
    stylegan2.Generator,
    stylegan2.Discriminator,
    vae.Encoder,
    vae.Decoder,
    vqgan.Encoder,
    vqgan.Decoder,
    PatchDiscriminator,
    AutoencoderKL,
    UNet2DConditionModel,
    TextTower,
)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda x: f"{x.__module__}.{x.__name__}")
def test_every_field_has_a_meaning(network):
    fields = module_fields(network)
    assert fields and [name for name, field in fields.items() if not field.meaning] == []


def test_a_meaning_ends_where_the_next_one_begins():
    fields = module_fields(DiT)
    assert fields["qk_norm"].meaning == "normalise queries and keys."
    assert fields["text_mode"].meaning.endswith("the norms (FiLM, arXiv 1709.07871).")
    assert fields["gate_init"].meaning.endswith("starts as the identity.")
