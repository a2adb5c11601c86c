"""The command line: `python main.py COMMAND`, or `t2i-jax COMMAND`. For arguments see parser.py."""

import argparse
import gc
import importlib.util
import os
import signal
import sys
import warnings

from t2i_jax.core import ctrl_c
from t2i_jax.core.command_line import first_line, join_values, lacks_memory, one_line
from t2i_jax.core.registry import did_you_mean
from t2i_jax.parser import parser

# Keep memory instead of returning it to the kernel, use huge pages, and one arena.
ALLOCATOR = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000:"
    "glibc.malloc.arena_max=1"
)


def main(argv: list[str]) -> None:
    """Run one command. Errors that a user can mend are printed as one line."""
    args, rest = parser().parse_known_args(join_values(argv))
    overrides = [arg.removeprefix("--config.") for arg in rest if arg.startswith("--config.")]
    if len(overrides) < len(rest):
        unknown = next(arg for arg in rest if not arg.startswith("--config."))
        parser().error(f"unknown argument {unknown!r}{meant(unknown, args)}")
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        from t2i_jax import commands  # once the arguments are checked: JAX takes a second to import

        if signal.getsignal(signal.SIGINT) is ctrl_c.leave_at_once:
            signal.signal(signal.SIGINT, ctrl_c.interrupt)
        try:
            getattr(commands, args.command.replace("-", "_"))(args, overrides)
        except Exception as error:
            ctrl_c.raise_lost()
            if not isinstance(error, (*commands.UserError, MemoryError)):
                raise
            if lacks_memory(error):
                sys.exit(
                    f"{args.command}: there is not enough memory ({first_line(error)}): a smaller "
                    "batch, picture or model needs less"
                )
            if type(error).__name__ == "JaxRuntimeError":  # a bug, not a mistake
                raise
            print(f"{args.command}: {one_line(error)}", file=sys.stderr)
            sys.exit(getattr(error, "exit_code", 1))
    except KeyboardInterrupt:
        ctrl_c.say_stopped(args.command)
        sys.exit(130)
    finally:
        warnings.formatwarning = before


def meant(unknown: str, args: argparse.Namespace) -> str:
    """Return "; did you mean --workdir?" for an unknown argument, or "" if nothing is near."""
    from t2i_jax.config.hints import nearest_key

    name, _, value = unknown.lstrip("-").partition("=")
    options = [name for name in vars(args) if name not in ("command", "given", "origin")]
    if name in options or did_you_mean(name, options):
        near = name if name in options else did_you_mean(name, options).split("'")[1]
        return f"; did you mean --{near}?"
    if key := nearest_key(name.removeprefix("config."), keys_to_set(args)):
        return f"; did you mean --config.{key}={value or 'VALUE'}?"
    return ""


def keys_to_set(args: argparse.Namespace) -> list[str]:
    """Return the keys of the config that `--config.KEY` sets, or [] if there is no such config."""
    from t2i_jax import config as configs
    from t2i_jax.core.settings import flatten

    try:
        if getattr(args, "config", None):
            return [*flatten(configs.load(args.config))]
        from t2i_jax.runs.run_folder import CHANGEABLE, config_of, read_run

        keys = flatten(config_of(read_run(getattr(args, "workdir", None) or "")))
        return [key for key in keys if key.startswith(CHANGEABLE)]
    except (ValueError, OSError):
        return []


def run() -> None:
    """Run the command line: the entry of `python main.py` and of the console script `t2i-jax`.

    Where JAX runs on the CPU, the process starts itself again with an allocator that keeps its
    memory: XLA's buffers are otherwise returned to the kernel at every step.
    """
    if "GLIBC_TUNABLES" not in os.environ and sys.platform == "linux" and runs_on_cpu():
        os.environ["GLIBC_TUNABLES"] = ALLOCATOR
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    # Tracing a step makes millions of small objects, and JAX adds work of its own to each search
    # for garbage among them: search less often than Python would.
    gc.set_threshold(200_000, 20, 20)
    sys.unraisablehook = ctrl_c.press_again
    signal.signal(signal.SIGINT, ctrl_c.leave_at_once)
    try:
        main(sys.argv[1:])
    except SystemExit as end:
        jax = sys.modules.get("jax")
        several = jax and jax.distributed.is_initialized()  # they part in Python's own clean-up
        if several or end.code not in (128 + signal.SIGINT, 128 + signal.SIGTERM):
            raise
        # Without Python's own clean-up: threads of XLA that are still compiling crash in it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(end.code))


def runs_on_cpu() -> bool:
    """Return whether JAX will run on the CPU, as far as can be told without importing it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms.split(",")[0] == "cpu"
    accelerators = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")
    return not any(importlib.util.find_spec(name) for name in accelerators)


if __name__ == "__main__":
    run()
