"""Named sizes of networks: the table `VARIANTS` in the file of each network."""


def fields_of(config, variants: dict) -> dict:
    """Return the fields of a network: those of a variant, overridden by those of `config`.

    config: the fields, and optionally `variant`, a name of `variants`; `network` is left out.
    Raises ValueError, naming all variants, for an unknown one.
    """
    fields = dict(config)
    fields.pop("network", None)
    variant = fields.pop("variant", None)
    if variant and variant not in variants:
        raise ValueError(f"there is no variant {variant!r}: there are {', '.join(variants)}")
    return {**variants.get(variant, {}), **fields}
