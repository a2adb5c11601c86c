"""Captions for data that has none: the name of a class in a template, such as "a photo of a {}"."""

import re

DEFAULT = "a photo of a {}"


def fill(template: str, name: str) -> str:
    """Return the template with `name` for {}, and "an" for "a" before a vowel.

    "a photo of a {}" and "ankle boot" give "a photo of an ankle boot". The rule goes by spelling,
    so it is wrong for "an hour" and "a unicorn"; it needs no dictionary. Raises ValueError if the
    template has no {}, because all classes would then get the same caption.
    """
    if "{}" not in template:
        raise ValueError(
            f"the template {template!r} has no {{}} for the name of the class, as {DEFAULT!r} has"
        )
    if name[:1].lower() in tuple("aeiou"):
        template = re.sub(r"\b([Aa]) \{\}", r"\1n {}", template)
    return template.replace("{}", name)
