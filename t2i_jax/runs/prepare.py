"""Preparing a run: the one place that resolves its config, opens its folder, reads its captions."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import jax
import numpy as np

from t2i_jax import config as configs
from t2i_jax.convert.load import find_importer
from t2i_jax.core.family import Family, Frozen, parameter_shapes
from t2i_jax.core.files import check_folder, file_hash, make_folder, write_atomically
from t2i_jax.core.source import Buckets, Source
from t2i_jax.core.trees import require_fit
from t2i_jax.data import augmentation, buckets
from t2i_jax.data.load import load_source
from t2i_jax.families.load import load_family, load_trained
from t2i_jax.runs import encoding_cache
from t2i_jax.runs.bucket import local_folder, upload
from t2i_jax.runs.checkpoint import last_complete_step
from t2i_jax.runs.columns import tokenise
from t2i_jax.runs.embeddings import with_new_token
from t2i_jax.runs.frozen import save_frozen, tree_hash
from t2i_jax.runs.lock import lock_folder
from t2i_jax.runs.model_card import write_card
from t2i_jax.runs.other_runs import refuse_other_tokens, with_other_runs
from t2i_jax.runs.run_folder import (
    config_of,
    is_run,
    read_frozen,
    read_run,
    read_tokenizer,
    read_variables,
    refuse_changes,
    refuse_other_frozen_settings,
    settings_hash,
)
from t2i_jax.text import tokenizer as tokenizers
from t2i_jax.text.encoder import make_encoder


class Split(NamedTuple):
    """A split of the data and its columns: token arrays, and encodings if they are cached.

    columns: as `loader.make_batch` takes them.
    """

    source: Source
    columns: Mapping[str, Any]


class Prepared(NamedTuple):
    """Everything that training needs and does not change.

    config: resolved: the configs of other runs that it uses are filled in.
    family: outside pmap.
    frozen: what training uses.
    frozen_for_drawing: `frozen`, and the reranker and the prior if there are any.
    augment: (batch, keys [B]) -> batch, or None.
    captions_cut: how many training captions were longer than `text.length`.
    lock: keeps other processes from training in the folder until it is closed.
    """

    config: Any
    workdir: Path
    family: Family
    tokenizer: Any
    frozen: Frozen
    frozen_for_drawing: Frozen
    training: Split
    validation: Split
    augment: Callable | None
    captions_cut: int
    lock: IO[str]


def prepare_run(
    config,
    workdir,
    check: Callable[[Any, Family], None] = lambda config, family: None,
    check_data: Callable[[Any, int], None] = lambda config, count: None,
) -> Prepared:
    """Open the run in the folder `workdir`, or create it, and return what training needs.

    A new run, or one that never saved a checkpoint, is created: its frozen parts are fitted or
    copied, its tokenizer is trained, and run.json is written last.
    check: (config, family) -> None, called before anything is written; it raises if this config
        could not be trained.
    check_data: the same, (config, number of training examples) -> None.
    Raises ValueError, before anything is written, for settings that do not fit each other, if the
    folder holds a run of another config, data or tokenizer (naming each difference), and if another
    process trains there.
    """
    workdir = check_folder(local_folder(workdir))
    check_folder(workdir / "checkpoints")
    config = resolve(config, workdir)
    family = load_trained(config)
    check(config, family)
    if config.first_stage.cache:
        encoding_cache.check(config, family)
    if not is_run(workdir):
        _check_origin(config)
    training, validation = (load_source(config.data, split) for split in ("train", "validation"))
    if training.buckets:
        _check_buckets(config, family, training.buckets)
    augment, variants = augmentation.make_augment(config.augment, training)
    if is_run(workdir):
        if "weights" in read_run(workdir):
            raise ValueError(
                f"{workdir} is a model without its training: name another --workdir, and start "
                f"from it with --config.init_from={workdir}"
            )
        refuse_changes(read_run(workdir), config, training, workdir)
    check_data(config, len(training.captions))
    is_new = not workdir.exists()
    make_folder(workdir)
    lock = lock_folder(workdir)
    try:
        tokenizer, frozen = open_run(config, workdir, family, training)
        upload(workdir)  # other processes read it
        for_drawing = with_other_runs(frozen, config, tokenizer)
        columns, cut = tokenise(training, tokenizer, config.text, variants)
        held_out = tokenise(validation, tokenizer, config.text)[0]
        if config.first_stage.cache:
            columns |= encoding_cache.cached_columns(config, family, frozen, training)
            held_out |= encoding_cache.cached_columns(config, family, frozen, validation)
    except BaseException:
        lock.close()
        if is_new and not is_run(workdir):
            shutil.rmtree(workdir, ignore_errors=True)
        raise
    return Prepared(
        config=config,
        workdir=workdir,
        family=family,
        tokenizer=tokenizer,
        frozen=frozen,
        frozen_for_drawing=for_drawing,
        training=Split(training, columns),
        validation=Split(validation, held_out),
        augment=augment,
        captions_cut=cut,
        lock=lock,
    )


def _check_buckets(config, family: Family, in_sizes: Buckets) -> None:
    """Raise ValueError if this model cannot be trained on pictures of several sizes."""
    if not {"width", "height"} <= set(family.settings.get("sample", ())):
        raise ValueError(
            f"data.sizes: {config.family} draws pictures of one size, data.resolution; leave it out"
        )
    if config.first_stage.cache:
        raise ValueError("first_stage.cache keeps pictures of one size, and data.sizes has several")
    buckets.check_batches(in_sizes, config.train.batch_size)


def _check_origin(config) -> None:
    """Raise ValueError if a new run cannot start from what `config.init_from` names."""
    if config.lora.add:
        raise ValueError(
            f"lora.add is {config.lora.add!r}: it is for drawing; training starts from one run, "
            "init_from"
        )
    if config.text.get("add"):
        raise ValueError(f"text.add is {config.text.add!r}: it is for drawing")
    if config.text.get("learn") and not config.lora.rank:
        raise ValueError(
            f"text.learn is {config.text.learn!r}, and lora.rank is 0: an adapter learns it, such "
            "as lora.rank=4 with lora.paths=learned"
        )
    importer = find_importer(config.init_from)
    if config.lora.rank and (importer or not config.init_from):
        raise ValueError(
            f"lora.rank is {config.lora.rank}, and init_from is {config.init_from!r}: an adapter "
            "is trained on the weights of a run, which init_from has to name"
        )
    if config.init_from and not importer:
        read_run(config.init_from)  # refuses what is not a run


def resolve(config, workdir=None) -> Any:
    """Return `config` with the configs of the runs it uses: its first stage, its reranker, ...

    workdir: the run's folder. A run that goes on there keeps the first stage and the embedder it
        has, wherever the other run's folder is now. Raises FileNotFoundError if a named folder is
        not a run.
    """
    config = configs.copy(config)
    with config.unlocked():
        for name in ("first_stage", "embedder"):  # copied into the run
            section = config.get(name, {})
            if section.get("run") and not section.config:
                section.config = _copied_config(name, section.run, workdir).to_dict()
        for name in ("reranker", "prior"):  # read when they are used
            if run := config.get(name, {}).get("run"):
                config[name].config = config_of(read_run(run)).to_dict()
    return config.lock()


def _copied_config(section: str, origin: str, workdir):
    if workdir is not None and last_complete_step(workdir) is not None:
        before = config_of(read_run(workdir)).get(section, {})
        if before.get("run") == origin:
            return before.config
    _warn_if_unfinished(section, origin)
    return config_of(read_run(origin))


def _warn_if_unfinished(section: str, origin: str) -> None:
    done, steps = last_complete_step(origin), config_of(read_run(origin)).train.steps
    if done is not None and done < steps:
        print(
            f"{section}.run: {origin} stopped at step {done:,} of {steps:,}; it is used as it is "
            "(its own command goes on with it)"
        )


def open_run(config, workdir: Path, family: Family, training: Source) -> tuple[Any, Frozen]:
    """Return (tokenizer, frozen parts) of the run in `workdir`; see `prepare_run`."""
    if is_run(workdir):
        run = read_run(workdir)
        if refuse_changes(run, config, training, workdir):
            if config.train.steps != config_of(run).train.steps:
                _lengthen(run, config, workdir)
            return read_tokenizer(workdir, run), read_frozen(workdir, run)
    elif last_complete_step(workdir) is not None:
        raise ValueError(
            f"{workdir} has checkpoints and no run.json, so nothing says what was trained there: "
            "put run.json back, or name another --workdir"
        )
    make_folder(workdir)
    importer = find_importer(config.init_from)
    if importer:
        importer.check(config)
    if config.init_from and not importer:
        origin = config.init_from
        run = read_run(origin)
        refuse_other_frozen_settings(config_of(run), config, family.frozen_depends_on)
        tokenizer = read_tokenizer(origin, run)
        frozen = _frozen_of(origin, run, config)
        if config.text.get("learn"):
            tokenizer, frozen = with_new_token(config, tokenizer, frozen)
    else:
        encoder = make_encoder(config.text)
        tokenizer = importer.tokenizer() if importer else encoder.make_tokenizer(training.captions)
        refuse_other_tokens(config, tokenizer)
        frozen = _make_frozen(config, family, tokenizer, training)
    _write_run(config, workdir, tokenizer, frozen, training)
    write_card(workdir, config, family.abilities)
    return tokenizer, frozen


def _frozen_of(origin: str, run: dict, config) -> Frozen:
    """Return the frozen parts of the run `origin`; for an adapter, also its weights as the base.

    Raises ValueError, naming the first that differ, if these are not the weights of this model.
    """
    if not config.lora.rank:
        frozen: Any = read_frozen(origin, run)
        return cast(Frozen, {name: part for name, part in frozen.items() if name != "base"})
    params, _, frozen = read_variables(origin)
    shapes = parameter_shapes(config, load_family(config))
    if config.text.get("learn"):  # nothing yet
        learned = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes["model"]["text"])
        params = {"model": {**params["model"], "text": learned}}
    require_fit(params, shapes, f"the weights of init_from = {origin} do not fit this model")
    return cast(Frozen, {**frozen, "base": jax.tree.map(np.asarray, params)})


def _make_frozen(config, family: Family, tokenizer, training: Source) -> Frozen:
    """Fit or copy the frozen parts; add the empty caption and the text encoder's weights."""
    encoder = make_encoder(config.text)
    null = encoder.precompute(tokenizers.encode(tokenizer, [""], config.text.length)[0])
    began = time.monotonic()
    fitted = family.make_frozen(training, read_variables)
    if fitted:
        print(f"fitted {', '.join(fitted)} in {time.monotonic() - began:.1f} s")
    null_text = {config.text.encoder: {key: value[0] for key, value in null.items()}}
    published = encoder.make_frozen()
    frozen = {"null_text": null_text, **fitted, **({"text": published} if published else {})}
    return cast(Frozen, frozen)


def _write_run(config, workdir: Path, tokenizer, frozen: Frozen, training: Source) -> None:
    write_atomically(workdir / "tokenizer.json", tokenizer.to_str(pretty=True))
    # Weights of a package are not copied: they can be had again.
    encoder = make_encoder(config.text)
    named_only = bool(encoder.package) and "text" in frozen
    own = {name: tree for name, tree in frozen.items() if name != "text" or not named_only}
    run = {
        "config": config.to_dict(),
        "settings": settings_hash(config.to_dict()),
        "data": training.fingerprint,
        "tokenizer": file_hash(workdir / "tokenizer.json"),
        "frozen": save_frozen(workdir, own),
    }
    if named_only:
        named = {
            "name": config.text.encoder,
            "package": encoder.package,
            "hash": tree_hash(frozen["text"]),
        }
        run["pretrained"] = {"text": named}
    # Last: a folder with run.json is a complete run.
    _write_run_json(workdir, run)


def _write_run_json(workdir: Path, run: dict) -> None:
    write_atomically(workdir / "run.json", json.dumps(run, indent=1, sort_keys=True))


def _lengthen(run: dict, config, workdir: Path) -> None:
    """Write more steps into the run.json of a finished run."""
    before = config_of(run).train.steps
    print(
        f"{workdir} is finished at step {before:,}; it goes on to step {config.train.steps:,}, "
        "with the learning rate of the longer run"
    )
    run["config"]["train"]["steps"] = config.train.steps
    _write_run_json(workdir, run)
