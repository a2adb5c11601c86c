"""Named sizes: `VARIANTS` beside each network, and the fields that a config makes of one."""


def fields_of(config, variants: dict) -> dict:
    """The fields of `config`, over those of `variants[config["variant"]]` if it names one; "network" is left out.

    Raises ValueError for a variant there is not, naming those there are.
    """
    fields = dict(config)
    fields.pop("network", None)
    variant = fields.pop("variant", None)
    if variant and variant not in variants:
        raise ValueError(f"there is no variant {variant!r}: there are {', '.join(variants)}")
    return {**variants.get(variant, {}), **fields}
