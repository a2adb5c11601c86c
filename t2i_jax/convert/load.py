"""Find the importer of a published model: the files of this folder are tried in turn."""

from t2i_jax.core.importer import Importer
from t2i_jax.core.registry import lookup, names_with


def find_importer(path) -> Importer | None:
    """Return the importer of the model at `path`, or None if it is of no known format.

    Reads as little as it takes to recognise the format.

    path: a file or folder; "" is none.
    """
    if not path:
        return None
    found = (
        lookup("convert", name, "importer")(path) for name in names_with("convert", "importer")
    )
    return next((importer for importer in found if importer is not None), None)
