"""Fields set from the command line, and values that are refused."""

import json
import math
from pathlib import Path

import pytest

from t2i_jax import config as configs
from t2i_jax.config.hints import nearest_key

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
from t2i_jax.config import base

def get_config():
    config = base()
    config.family = FAMILY
    config.data = {"name": "shapes", "resolution": 32}
    config.model = MODEL
    config.sample = SAMPLE
    return config
"""


@pytest.fixture
def load(tmp_path):
    """load(*overrides, family=..., **model) -> the config of a family with these overrides."""

    def load(*overrides, family="diffusion", **model):
        given = {"FAMILY": family, "MODEL": model, "SAMPLE": {}}
        if family == "diffusion":
            given |= {"MODEL": {"network": "unet", **model}, "SAMPLE": {"guidance": 2.0}}
        text = CONFIG
        for name, value in given.items():
            text = text.replace(name, repr(value))
        (tmp_path / "c.py").write_text(text)
        return configs.load(str(tmp_path / "c.py"), overrides)

    return load


def test_every_kind_of_value(load):
    config = load(
        "model.multipliers=[1,2]",
        "model.attention=()",
        "model.cross_attention=False",
        "init_from=5",
        "optim.learning_rate=1",
        "optim.decay_at=(0.25,)",
        "train.steps=1_000",
        "sample.rescale=0.5",
        "diffusion.time=uniform",
        "evaluate.extractor_path=a=b",
    )
    assert (config.model.multipliers, config.model.attention) == ((1, 2), ())
    assert config.model.cross_attention is False and config.init_from == "5"
    assert config.train.steps == 1000
    assert config.optim.learning_rate == 1.0 and isinstance(config.optim.learning_rate, float)
    assert config.optim.decay_at == (0.25,) and config.sample.rescale == 0.5
    assert config.diffusion.time == "uniform" and config.evaluate.extractor_path == "a=b"


def test_a_float_can_be_infinite_where_its_limit_is(load):
    sample = load("sample.choice_temperature=inf", family="masked").sample
    assert sample.choice_temperature == math.inf


def test_an_override_can_bring_other_fields(load):
    config = load("model.network=dit", "model.mlp_ratio=2", "text.encoder=language_model")
    assert config.model.mlp_ratio == 2.0 and "blocks" not in config.model
    config = load("text.positions=8", "text.encoder=language_model", "data.name=folder")
    assert config.text.positions == 8 and config.data.max_skipped == 0.1
    assert "scenes" not in config.data
    config = load("caption.beams=3", "captioning=0.5", family="autoregressive")
    assert (config.caption.beams, config.captioning) == (3, 0.5)
    config = load("vae.beta=2", family="vae")
    assert config.vae.beta == 2.0 and "diffusion" not in config


def test_a_source_gives_its_own_defaults(load, tmp_path):
    assert load("data.name=folder").data.resolution == 32  # set by the file
    text = (tmp_path / "c.py").read_text().replace(', "resolution": 32', "")
    (tmp_path / "c.py").write_text(text)
    assert configs.load(str(tmp_path / "c.py"), ["data.name=folder"]).data.resolution == 64


def test_fields_of_one_player(load):
    whole = load("optim.players={'discriminator': {'b1': 0.0}}", family="vqgan")
    part = load("optim.players.discriminator.b1=0", family="vqgan")
    assert whole == part and isinstance(part.optim.players.discriminator.b1, float)
    more = load("optim.players.model.name=sgd", "optim.players.model.clip=2", family="vqgan")
    assert more.optim.players.to_dict() == {"model": {"name": "sgd", "clip": 2.0}}
    assert load("optim.players={}", family="vqgan").optim.players.to_dict() == {}


def test_fields_of_a_transformer_block(load):
    config = load("model.block.mlp=swiglu", "model.block.rope=10000", family="autoregressive")
    assert (config.model.block.mlp, config.model.block.rope) == ("swiglu", 10000.0)
    assert config.model.block.norm == "rms"


UNKNOWN = [
    ("train.stepps=3", "did you mean 'train.steps'"),
    ("optim.lerning_rate=3", "did you mean 'optim.learning_rate'"),
    ("optim.lr=3", "did you mean 'optim.learning_rate'"),
    ("optim.wd=3", "did you mean 'optim.weight_decay'"),
    ("optim.scale=3", "did you mean 'optim.adam_scale'"),
    ("lr=3", "did you mean 'optim.learning_rate'"),
    ("guidance=3", "did you mean 'sample.guidance'"),
    ("steps=3", "did you mean '(train|sample).steps'"),
    ("sampel.guidance=3", "did you mean 'sample.guidance'"),
    ("modle.width=3", "did you mean 'model.width'"),
    ("sample.sampler_steps=3", "did you mean 'sample.steps'|did you mean 'sample.sampler'"),
    ("model.reach=3", "unknown config key 'model.reach'"),
    ("data.path=x", "unknown config key 'data.path': data has name, resolution, scenes"),
    ("text.foo=3", "unknown config key 'text.foo': text has .*length"),
    ("foo.bar=3", "unknown config key 'foo.bar'$"),
    ("train=3", "unknown config key 'train': it is a section, with train"),
    ("sample=3", "unknown config key 'sample': it is a section, with sample"),
    ("train.steps.x=3", "'train.steps.x': train.steps is a field, not a section"),
    ("optim.players.model.lr=3", "did you mean 'optim.players.model.learning_rate'"),
    ("optim.players.model.players=3", "unknown config key 'optim.players.model.players'"),
    ("=3", "unknown config key ''"),
    ("train.=3", "unknown config key 'train.'"),
    (".steps=3", "unknown config key '.steps'"),
    ("train..steps=3", "unknown config key 'train..steps'"),
]
WRONG_TYPE = [
    ("train.steps", "--config.train.steps has no value: write --config.train.steps=VALUE"),
    ("train.steps=many", "train.steps is int"),
    ("train.steps=2.5", "train.steps is int"),
    ("train.steps=", "train.steps is int"),
    ("train.steps=True", "train.steps is int"),
    ("optim.learning_rate=True", "optim.learning_rate is float"),
    ("optim.learning_rate=fast", "optim.learning_rate is float"),
    ("first_stage.cache=1", "first_stage.cache is bool"),
    ("model.multipliers=2", "model.multipliers is tuple"),
    ("model.multipliers=(1, 'a')", "config.model.multipliers is .*: it must be a tuple such as"),
    ("optim.decay_at=(0.5, 'a')", "it must be a tuple such as"),
    ("optim.players=3", "optim.players is dict"),
    ("optim.players={3", "optim.players is dict"),
    ("optim.players={[]: 3}", "optim.players is dict"),
    ("optim.players={3: {}}", "optim.players is dict"),
    ("optim.players={'a.b': {}}", "optim.players is dict"),
    ("optim.players=" + "[" * 9999, "optim.players is dict"),
    ("train.steps=\0", "train.steps is int"),
    ("optim.players.model=3", "it must be a dict of fields of optim"),
    ("optim.players.model.clip=x", "optim.players.model.clip is float"),
]
OUT_OF_RANGE = [
    ("train.steps=0", "config.train.steps is 0: it must be from 1 to .* \\(training steps\\)"),
    ("train.steps=-5", "config.train.steps is -5"),
    ("train.batch_size=0", "config.train.batch_size is 0"),
    ("train.batch_size=100000000", "config.train.batch_size is 100000000"),
    ("train.accumulate=0", "config.train.accumulate is 0: it must be from 1"),
    ("train.log_every=0", "config.train.log_every is 0: it must be from 1"),
    ("train.save_every=-1", "config.train.save_every is -1: it must be from 1"),
    ("train.eval_every=-1", "config.train.eval_every is -1: it must be from 0"),
    ("train.grid=-3", "config.train.grid is -3"),
    ("evaluate.num=0", "config.evaluate.num is 0"),
    ("evaluate.batch=0", "config.evaluate.batch is 0"),
    ("evaluate.extractor=inceptoin", "inception or siglip.*mean 'inception'"),
    ("optim.learning_rate=-0.1", "config.optim.learning_rate is -0.1: it must be at least 0"),
    ("optim.learning_rate=inf", "config.optim.learning_rate is inf"),
    ("optim.learning_rate=nan", "config.optim.learning_rate is nan"),
    ("train.warmup=3", "unknown config key 'train.warmup'; did you mean 'optim.warmup'"),
    ("optim.warmup=" + "9" * 400 + "0", "config.optim.warmup is 9*0: it must be from 0"),
    ("optim.name=adam", "it must be adamw, lion, muon or sgd .*; did you mean 'adamw'"),
    ("optim.schedule=cosin", "did you mean 'cosine'"),
    (
        "optim.decay_at=(0.5, 1.5)",
        "config.optim.decay_at is \\(0.5, 1.5\\): it must be from 0 to 1",
    ),
    ("optim.players.model.b1=2", "config.optim.players.model.b1 is 2.0"),
    ("optim.players={'model': {'clip': -1}}", "config.optim.players.model.clip is -1"),
    ("caption_dropout=5", "config.caption_dropout is 5.0: it must be from 0 to 1"),
    ("ema_decay=2", "config.ema_decay is 2.0"),
    ("ema_decay=inf", "config.ema_decay is inf"),
    ("seed=-1", "config.seed is -1"),
    ("seed=4294967296", "config.seed is 4294967296"),
    ("text.length=0", "config.text.length is 0"),
    ("text.cell=lstm", "config.text.cell is 'lstm': it must be gru or bilstm"),
    ("data.resolution=100000", "config.data.resolution is 100000"),
    ("augment.flip=2", "config.augment.flip is 2.0: it must be from 0 to 1"),
    ("parallel.mode=pmp", "it must be jit or pmap .*; did you mean 'pmap'"),
    ("parallel.fsdp=0", "config.parallel.fsdp is 0"),
    ("parallel.tensor=-1", "config.parallel.tensor is -1"),
    ("model.width=0", "config.model.width is 0"),
    ("model.heads=0", "config.model.heads is 0"),
    ("model.blocks=-1", "config.model.blocks is -1"),
    ("model.dropout=1.5", "config.model.dropout is 1.5"),
    ("model.dtype=fp16", "config.model.dtype is 'fp16': it must be float32"),
    ("sample.guidance=nan", "config.sample.guidance is nan"),
    ("sample.guidance=inf", "config.sample.guidance is inf"),
    ("sample.steps=0", "config.sample.steps is 0"),
    ("sample.sampler=eulr", "did you mean 'euler'"),
    ("family=difusion", "there is no 'difusion' in families.*did you mean 'diffusion'"),
    ("text.encoder=minlm", "there is no 'minlm' in text.*did you mean 'minilm'"),
    ("data.name=shaps", "there is no 'shaps' in data.*did you mean 'shapes'"),
    ("model.network=unt", "there is no 'unt' in models.*did you mean 'unet'"),
]


@pytest.mark.parametrize(("override", "message"), UNKNOWN + WRONG_TYPE + OUT_OF_RANGE)
def test_a_bad_override_is_refused_in_one_line(load, override, message):
    with pytest.raises(ValueError, match=message) as error:
        load(override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("family", "override", "message"),
    [
        ("autoregressive", "model.depth=-1", "config.model.depth is -1"),
        ("autoregressive", "sample.temperature=-1", "config.sample.temperature is -1.0"),
        ("autoregressive", "sample.temperature=nan", "config.sample.temperature is nan"),
        ("autoregressive", "sample.top_p=2", "config.sample.top_p is 2.0"),
        ("autoregressive", "sample.top_k=-3", "config.sample.top_k is -3"),
        ("autoregressive", "model.block.mlp=relu", "config.model.block.mlp is 'relu'"),
        ("autoregressive", "model.block.mlpp=gelu", "did you mean 'model.block.mlp'"),
        ("autoregressive", "model.qk_norm=True", "did you mean 'model.block.qk_norm'"),
        ("autoregressive", "model.block={}", "'model.block': it is a section"),
        ("autoregressive", "caption.beams=2", "unknown config key 'caption.beams'"),
        ("masked", "sample.sure=nan", "config.sample.sure is nan"),
    ],
)
def test_bad_values_of_a_family(load, family, override, message):
    with pytest.raises(ValueError, match=message):
        load(override, family=family)


def test_a_field_of_the_patch_codebook():
    file = f"{ROOT}/configs/shapes.py"
    assert configs.load(file, ["image_tokenizer.codes=8"]).image_tokenizer.codes == 8
    with pytest.raises(ValueError, match=r"config\.image_tokenizer\.codes is 0"):
        configs.load(file, ["image_tokenizer.codes=0"])


def test_fields_of_the_file_that_another_network_does_not_have(load):
    message = r"'model\.blocks' \(set by the config file\): model has network, variant, patch"
    with pytest.raises(ValueError, match=message):
        load("model.network=dit", blocks=2)


def test_a_complete_config_can_be_overridden(load):
    config = load()
    configs.override(config, ["sample.guidance=3", "optim.players.model.clip=2"])
    assert config.sample.guidance == 3.0 and config.optim.players.model.clip == 2.0
    assert config.is_locked and config.sample.is_locked
    with pytest.raises(ValueError, match=r"config\.sample\.guidance is nan"):
        configs.override(config, ["sample.guidance=nan"])
    assert config.sample.guidance == 3.0
    with pytest.raises(ValueError, match=r"did you mean 'sample\.guidance'"):
        configs.override(config, ["sample.guidanse=1"])


def test_only_what_is_overridden_is_checked(load):
    """A run of an earlier version may have a value that is refused today."""
    config = load()
    with config.unlocked():
        config.train.save_every = 0
    configs.override(config, ["sample.guidance=3"])
    with pytest.raises(ValueError, match=r"config\.train\.save_every is 0"):
        configs.override(config, ["train.save_every=0"])


def test_the_data_section_alone_can_be_overridden():
    """As `main.py prepare` does."""
    config = configs.base()
    config = type(config)({"data": {"name": "shapes", "resolution": 32}})
    configs.override(config, ["data.scenes=5"])
    assert config.to_dict() == {"data": {"name": "shapes", "resolution": 32, "scenes": 5}}


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("a.lr", "a.learning_rate"), ("a.b1", "a.b1"), ("l2", "a.l2"), ("zzz", None), ("a.z", None)],
)
def test_nearest_key(key, nearest):
    assert nearest_key(key, ["a.l2", "a.b1", "a.learning_rate", "c.width"]) == nearest


def test_another_data_source_has_its_own_fields_only(tmp_path):
    """What the config file says of its own data is left out, but for what both have."""
    given = configs.load(f"{ROOT}/configs/shapes.py").data
    config = configs.load(f"{ROOT}/configs/shapes.py", ["data.name=folder", "data.path=DIR"])
    assert given.scenes == 0 and "scenes" not in config.data
    assert (config.data.resolution, config.data.path) == (given.resolution, "DIR")
    assert config.data.max_skipped == 0.1
    with pytest.raises(ValueError, match=r"unknown config key 'data\.scenes'"):
        configs.load(f"{ROOT}/configs/shapes.py", ["data.scenes=3", "data.name=folder"])
    with pytest.raises(ValueError, match=r"there is no 'folde' in data.*did you mean 'folder'"):
        configs.load(f"{ROOT}/configs/shapes.py", ["data.name=folde"])
    same = configs.load(f"{ROOT}/configs/shapes.py", ["data.name=shapes", "data.scenes=3"])
    assert same.data.scenes == 3
    sizes = dict.fromkeys(("vocab_size", "n_embd", "n_layer", "n_head", "n_positions"), 64)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    file = f"{ROOT}/configs/shapes_llm.py:{tmp_path}"
    tuned = configs.load(file, ["data.name=folder", "data.path=DIR"])
    assert tuned.init_from == str(tmp_path) and tuned.data.path == "DIR"
