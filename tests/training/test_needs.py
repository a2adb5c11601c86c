"""Memory and exchanges of a compiled step, and what is said of a step that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from t2i_jax import cli
from t2i_jax.runs import prepare
from t2i_jax.training import loop, mesh, needs, parallel, programs


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_peak_bytes_by_hand():
    def compiled(**kwargs):
        program = jax.jit(lambda x, y: (x + y, y[0]), **kwargs)
        return program.lower(array(1000), array(1000)).compile()

    table = 16 * 2  # two outputs are a tuple of pointers, on CPU
    assert 4 * 3001 <= needs.peak_bytes(compiled()) <= 4 * 3001 + table
    assert needs.peak_bytes(compiled()) - needs.peak_bytes(compiled(donate_argnums=0)) == 4000


def test_collectives_by_hand():
    """A product whose inner dimension is split is summed over the devices."""
    devices = mesh.make_mesh(8)
    rows, columns = (
        NamedSharding(devices, PartitionSpec(*axes)) for axes in ((None, "fsdp"), ("fsdp", None))
    )
    whole = NamedSharding(devices, PartitionSpec())
    program = jax.jit(jnp.matmul, in_shardings=(rows, columns), out_shardings=whole)
    compiled = program.lower(array(16, 64), array(64, 8)).compile()
    assert needs.collectives(compiled) == {"all-reduce": (1, 16 * 8 * 4)}
    assert needs.collectives(jax.jit(jnp.matmul).lower(array(2, 2), array(2, 2)).compile()) == {}


@pytest.mark.parametrize(
    ("result", "count"),
    [("(f32[8,4]{1,0}, s32[])", 132), ("bf16[3]{0}", 6), ("pred[5]", 5), ("u8[2,2]", 4)],
)
def test_bytes_of_arrays_in_hlo(result, count):
    assert needs._bytes_of(result) == count


def test_a_step_that_does_not_fit_says_what_would_help(smoke, tmp_path, monkeypatch):
    """Each setting that is named needs as much as is said, and less than this step."""
    config = smoke("shapes", "model.depth=1", "model.heads=1", "optim.name=adamw")
    monkeypatch.setattr(needs, "memory_of_a_device", lambda: 1000)
    monkeypatch.setattr(needs, "GIB", 1)
    with pytest.raises(ValueError, match=r"a step needs [\d,.]+ GiB of each device, and") as error:
        loop.train(config, tmp_path / "run")
    said = str(error.value)
    settings = ["batch_size=4", "accumulate=2", "parallel.remat=full", "parallel.fsdp=8"]
    named = [s for s in settings if s in said]
    # 8 examples on 8 devices do not divide further, and one block keeps little.
    assert named == ["parallel.fsdp=8"]
    bytes_of = [float(part.split(" GiB")[0].replace(",", "")) for part in said.split(": ")[1:]]
    needed = float(said.split("needs ")[1].split(" GiB")[0].replace(",", ""))
    assert len(bytes_of) == 1 and bytes_of[0] < needed


def test_memory_of_accumulation_is_that_of_a_part(smoke, tmp_path):
    """32 parts need as much as one of them alone, and one gradient."""

    def temporary(size, parts):
        config = smoke(
            "shapes",
            f"train.batch_size={size}",
            f"train.accumulate={parts}",
            "model.width=128",
            "model.depth=2",
            "optim.name=adamw",
        )
        prepared = prepare.prepare_run(config, tmp_path / f"run_{parts}")
        prepared.lock.close()
        place = parallel.make(config.parallel, jax.devices()[:1])
        made = programs.make_programs(prepared, place)
        params = jax.eval_shape(made.create).params
        memory = programs.compile_step(made, prepared, place).memory_analysis()
        return memory.temp_size_in_bytes, 4 * sum(x.size for x in jax.tree.leaves(params))

    (one, gradient), (many, _) = temporary(64, 1), temporary(64 * 32, 32)
    assert many < 1.2 * (one + gradient), (many, one, gradient)
    assert np.isclose(gradient, 4 * 5e5, rtol=0.5)


def test_compile_only_describes_a_step_and_writes_no_run(tmp_path, capsys):
    words = ["train", "--config=configs/shapes.py:smoke", f"--workdir={tmp_path / 'run'}"]
    cli.main([*words, "--compile_only", "--config.parallel.fsdp=8"])
    said = capsys.readouterr().out
    assert "parameters: 70,976\n" in said and "on 8 devices" in said and "all-gather: " in said
    assert not (tmp_path / "run").exists()
