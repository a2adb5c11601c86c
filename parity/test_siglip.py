"""SigLIP against transformers' SiglipModel with the same random weights; our loss against its."""

import jax
import numpy as np
import torch
from transformers import SiglipConfig, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from parity.agreement import arrays_of, check_close, random_model
from parity.tiny_tokenizer import learn_t5
from t2i_jax.families.contrastive_loss import KINDS, contrast
from t2i_jax.features import extractor
from t2i_jax.features.clip import resize
from t2i_jax.models.siglip import SigLIP
from t2i_jax.weights import siglip as convert

TEXT = dict(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    max_position_embeddings=12,
)
IMAGE = dict(
    hidden_size=32,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=48,
    patch_size=8,
)


def test_both_towers_and_the_loss():
    model = random_model(SiglipModel, SiglipConfig(text_config=TEXT, vision_config=IMAGE))
    net = SigLIP(**convert.fields(model.config.to_dict()))
    params = convert.read(arrays_of(model), net, "the model")
    r = np.random.default_rng(0)
    pictures = r.uniform(-1, 1, (5, 48, 48, 3)).astype(np.float32)
    tokens = r.integers(0, 300, (5, 12)).astype(np.int32)
    with torch.no_grad():
        pixels = torch.tensor(pictures).permute(0, 3, 1, 2)
        theirs = model(torch.tensor(tokens), pixels, return_loss=True)

    def run(params, pictures, tokens):
        def everything(net):
            image, text = net.embed_image(pictures), net.embed_text(tokens)
            return image, text, net(pictures, tokens)

        return net.apply({"params": params}, method=everything)

    image, text, logits = jax.jit(run)(params, pictures, tokens)
    check_close(image, theirs.image_embeds, "image vectors")
    check_close(text, theirs.text_embeds, "text vectors")
    check_close(logits, theirs.logits_per_image, "logits")
    scale, bias = np.exp(params["log_scale"]), params["offset"]
    losses, _ = contrast(
        KINDS["sigmoid"], lambda a, b: scale * a @ b.T + bias, image, text, tokens, np.ones(5)
    )
    np.testing.assert_allclose(losses.mean(), theirs.loss, rtol=1e-5)


def test_a_published_folder(tmp_path):
    """Pictures and captions through all files, against transformers."""
    captions = [
        "a large red circle above a small blue square",
        "",
        "It's  THE\tsecond!",
        "red " * 20,
    ]
    tokenizer = learn_t5(captions, 60)
    tokenizer.save_pretrained(tmp_path)
    text = {**TEXT, "vocab_size": len(tokenizer)}
    model = random_model(SiglipModel, SiglipConfig(text_config=text, vision_config=IMAGE))
    processor = SiglipImageProcessorPil(size={"height": 48, "width": 48})
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    made = extractor.load("siglip", str(tmp_path))
    plain = ["a large red circle above a small blue square", "", "its the second", "red " * 20]
    ids = [tokenizer(x, add_special_tokens=False)["input_ids"][:11] for x in plain]
    rows = [[*row, *[1] * (12 - len(row))] for row in ids]
    with torch.no_grad():
        words = model.text_model(torch.tensor(rows)).pooler_output
    check_close(made.embed_text(captions), words / words.norm(dim=-1, keepdim=True), "captions")

    r = np.random.default_rng(0)
    pictures = r.integers(0, 256, (4, 48, 48, 3)).astype(np.uint8)
    with torch.no_grad():
        image = model.vision_model(**processor(list(pictures), return_tensors="pt")).pooler_output
    found = jax.jit(made.apply)(made.weights, pictures)["features"]
    check_close(found, image / image.norm(dim=-1, keepdim=True), "pictures")
    # Resized pictures differ by at most one level, in few pixels.
    pictures = r.integers(0, 256, (2, 60, 90, 3)).astype(np.uint8)
    theirs = processor(list(pictures), return_tensors="pt")["pixel_values"].permute(0, 2, 3, 1)
    levels = np.abs(np.asarray(resize(pictures, 48, 48)) - (theirs.numpy() + 1) * 127.5)
    assert levels.max() < 1.01 and (levels > 0.5).mean() < 1e-3
