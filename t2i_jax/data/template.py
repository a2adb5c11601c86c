"""Captions for data that has none: the name of a class in a template, such as "a photo of a {}"."""

import re

DEFAULT = "a photo of a {}"


def fill(template: str, name: str) -> str:
    """The template with `name` in the place of {}, and "an" for "a" before a vowel: "a photo of an ankle boot".

    The rule is that of spelling, which is wrong for "an hour" and "a unicorn": better that than a dictionary. Raises
    ValueError if the template has no {}, so that a forgotten one does not give all classes one caption.
    """
    if "{}" not in template:
        raise ValueError(f"the template {template!r} has no {{}} for the name of the class, as {DEFAULT!r} has")
    if name[:1].lower() in tuple("aeiou"):
        template = re.sub(r"\b([Aa]) \{\}", r"\1n {}", template)
    return template.replace("{}", name)
