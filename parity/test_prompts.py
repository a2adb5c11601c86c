"""Prompts with weights and of several chunks, against the same computed with PyTorch.

The formula is that of AUTOMATIC1111's web UI, and of the community pipeline
lpw_stable_diffusion of diffusers for prompts of one chunk.
"""

import jax
import numpy as np
import pytest
import torch
from ml_collections import ConfigDict
from PIL import Image
from safetensors.numpy import save_file

import t2i_jax
from parity.test_stable_diffusion import (
    GUIDANCE,
    LENGTH,
    STEPS,
    check_pictures,
    noise_of,
    our_pictures,
    stable_diffusion,
    stable_diffusion_xl,
    their_pictures,
)
from t2i_jax.config.defaults import complete
from t2i_jax.pipeline import run_ability
from t2i_jax.runs.converted import convert_in, convert_out
from t2i_jax.runs.run_folder import config_of, read_run
from t2i_jax.training.loop import train

# Prompts, and the same in parts with weights. The first has one chunk, the second two.
PROMPTS = {
    "a (large:1.4) red [circle]": [("a ", 1), ("large", 1.4), (" red ", 1), ("circle", 1 / 1.1)],
    "two cafés, (naïve art) above a large red circle, a small blue square": [
        *(("two cafés, ", 1), ("naïve art", 1.1)),
        (" above a large red circle, a small blue square", 1),
    ],
}
NEGATIVE, NEGATIVE_PARTS = "small (square:0.6)", [("small ", 1), ("square", 0.6)]


def encode(parts, encoders, hidden):
    """Return (vectors [1, chunks * LENGTH, D], the pooled vector of the last encoder)."""
    sequences, pooled = [], None
    for encoder, tokenizer in encoders:
        ids, weights = [], []
        for text, weight in parts:
            own = tokenizer(text).input_ids[1:-1]
            ids, weights = ids + own, weights + [weight] * len(own)
        start, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        chunks, pooled = [], None
        for first in range(0, len(ids), LENGTH - 2):
            own = [start, *ids[first : first + LENGTH - 2], end]
            factor = [1, *weights[first : first + LENGTH - 2], 1]
            missing = LENGTH - len(own)
            tokens = torch.tensor([own + [pad] * missing])
            factor = torch.tensor(factor + [1.0] * missing)
            with torch.no_grad():
                found = encoder(tokens, output_hidden_states=True)
            states = found.last_hidden_state if hidden == -1 else found.hidden_states[hidden]
            weighted = states * factor[None, :, None]
            chunks.append(weighted * (states.mean() / weighted.mean()))
            pooled = found[0] if pooled is None else pooled
        sequences.append(torch.cat(chunks, dim=1))
    return torch.cat(sequences, dim=2), pooled


def in_their_way(pipe, noise, encoders, hidden):
    """Each prompt alone: those of diffusers in one call have to be equally long."""
    pipe.set_progress_bar_config(disable=True)
    found = []
    for i, parts in enumerate(PROMPTS.values()):
        sequence, pooled = encode(parts, encoders, hidden)
        negative, pooled_negative = encode(NEGATIVE_PARTS, encoders, hidden)
        # Attention to a sequence and to its repetition are the same.
        negative = negative.repeat(1, sequence.shape[1] // negative.shape[1], 1)
        more = dict(prompt_embeds=sequence, negative_prompt_embeds=negative)
        if len(encoders) == 2:
            more |= dict(pooled_prompt_embeds=pooled, negative_pooled_prompt_embeds=pooled_negative)
        found += pipe(
            latents=torch.tensor(noise[i : i + 1]).permute(0, 3, 1, 2),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="np",
            height=32,
            width=32,
            **more,
        ).images.tolist()
    return np.array(found)


@pytest.mark.parametrize("model", ["1", "2", "XL"])
def test_weights_and_chunks(model, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    if model == "XL":
        pipe, hidden = stable_diffusion_xl(tmp_path / "tokenizer"), -2
        second = [(pipe.text_encoder_2, pipe.tokenizer_2)]
    else:  # version 2 fills captions up with token 0
        pad = {"pad": "!"} if model == "2" else {}
        pipe, hidden, second = stable_diffusion(tmp_path / "tokenizer", **pad), -1, []
    pipe.save_pretrained(tmp_path / "model")
    encoders = [(pipe.text_encoder, pipe.tokenizer), *second]
    ours, noise = t2i_jax.load(tmp_path / "model"), noise_of(32, 32)
    expected = in_their_way(pipe, noise, encoders, hidden)
    given = dict(prompts=list(PROMPTS), negative_prompt=NEGATIVE, width=32, height=32)
    found = our_pictures(ours, noise, emphasis=True, **given)
    check_pictures(found, expected, f"Stable Diffusion {model}, weights and chunks")
    before = run_ability._cache_size()  # new prompts of as many chunks compile nothing
    given["prompts"] = ["(circle)", list(PROMPTS)[1].replace(" red", "")]
    other = our_pictures(ours, noise, emphasis=True, **given)
    assert np.abs(other - found.astype(int)).mean() > 2 and run_ability._cache_size() == before
    plain = our_pictures(ours, noise, **{**given, "prompts": list(PROMPTS)})
    assert np.abs(plain / 255 - expected).mean() > 2 / 255  # brackets as text


@pytest.mark.parametrize("vectors", [1, 3])
def test_learned_embeddings(vectors, tmp_path):
    """Textual inversion: the same file draws the same pictures."""
    (tmp_path / "tokenizer").mkdir()
    pipe = stable_diffusion(tmp_path / "tokenizer")
    pipe.save_pretrained(tmp_path / "model")
    width = pipe.text_encoder.config.hidden_size
    rows = np.random.default_rng(2).normal(size=(vectors, width)).astype(np.float32)
    save_file({"<my-cat>": rows}, tmp_path / "cat.safetensors")
    pipe.load_textual_inversion(str(tmp_path / "cat.safetensors"))
    ours = t2i_jax.load(tmp_path / "model", overrides=[f"text.add={tmp_path}/cat.safetensors"])
    told = ["a large red <my-cat>", "naïve art, <my-cat>, blue"]
    noise = noise_of(32, 32)
    given = dict(prompts=told, negative_prompt=told[0])
    found = our_pictures(ours, noise, **given)
    expected = their_pictures(pipe, noise, told[0], told)
    check_pictures(found, expected, f"a token of {vectors} vectors")
    plain = our_pictures(t2i_jax.load(tmp_path / "model"), noise, **given)
    assert np.abs(plain / 255 - expected).mean() > 2 / 255


def test_a_token_that_is_trained(tmp_path):
    """Training changes its vectors alone; diffusers draws the same with the file of them."""
    (tmp_path / "tokenizer").mkdir()
    pipe = stable_diffusion(tmp_path / "tokenizer")
    pipe.save_pretrained(tmp_path / "model")
    base, workdir = tmp_path / "base", tmp_path / "run"
    convert_in(str(tmp_path / "model"), str(base))
    for split in ("train", "validation", "test"):
        folder = tmp_path / "pictures" / split
        folder.mkdir(parents=True)
        Image.fromarray(np.full((32, 32, 3), 200, np.uint8)).save(folder / "a.png")
        (folder / "a.txt").write_text("a <mine> circle")
    config = config_of(read_run(base)).to_dict()
    config["data"] = {"name": "folder", "path": str(tmp_path / "pictures"), "resolution": 32}
    config = ConfigDict(complete(config)[0])
    config.init_from, config.lora.rank, config.lora.paths = str(base), 4, "learned"
    config.text.update(learn="<mine>", vectors=2, start="red circle")
    config.optim.update(name="adamw", learning_rate=0.1, weight_decay=0.0)
    config.train.update(steps=4, batch_size=8, eval_every=0, reader="threads")
    train(config, workdir)
    ours, before = t2i_jax.load(workdir), t2i_jax.load(base)
    nets = (each.variables.params["model"]["net"] for each in (ours, before))
    jax.tree.map(np.testing.assert_array_equal, *nets)
    (learned,) = jax.tree.leaves(ours.variables.params["model"]["text"])
    assert learned.shape == (2, 24) and (np.abs(learned) > 0.01).any(1).all()
    convert_out(str(workdir), "last", str(tmp_path / "mine.safetensors"))
    pipe.load_textual_inversion(str(tmp_path / "mine.safetensors"))
    told, noise = ["a <mine>, blue", "naïve <mine> art"], noise_of(32, 32)
    given = dict(prompts=told, negative_prompt=told[0])
    expected = their_pictures(pipe, noise, told[0], told)
    check_pictures(our_pictures(ours, noise, **given), expected, "a trained token")
    added = t2i_jax.load(base, overrides=[f"text.add={tmp_path}/mine.safetensors"])
    check_pictures(our_pictures(added, noise, **given), expected, "a trained token, added")
