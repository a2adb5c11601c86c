"""The command line of t2i_jax: see `python main.py --help`, or t2i_jax/parser.py."""

from t2i_jax.cli import run

if __name__ == "__main__":
    run()
