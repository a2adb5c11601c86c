"""Which weights of a network tensor parallelism splits (arXiv 1909.08053, section 3).

In a block, the first layer splits its outputs and the second its inputs: each device computes some
heads and some hidden units, and the results are summed once after each pair.
"""

SPLIT_OUTPUTS = ("query", "key", "value", "mlp_in", "mlp_gate")
SPLIT_INPUTS = ("out", "mlp_out")


def split_dimension(path: tuple[str, ...], dimensions: int) -> int | None:
    """Return the dimension of a weight that is split, or None if every device holds all of it.

    path: names down to the weight, such as ("block_0", "mlp_in", "kernel").
    dimensions: of the weight's array.
    """
    layer, weight = path[-2:] if len(path) > 1 else ("", "")
    if layer in SPLIT_OUTPUTS and (weight, dimensions) in (("kernel", 2), ("bias", 1)):
        return dimensions - 1
    if layer in SPLIT_INPUTS and (weight, dimensions) == ("kernel", 2):
        return 0
    return None
