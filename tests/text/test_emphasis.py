"""Weights in prompts: the examples by which the form is documented, and what is no bracket."""

import hypothesis
import hypothesis.strategies as st
import pytest

from t2i_jax.text.emphasis import parse


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                *(("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1)),
                *(("hill", 0.55), (", sun, ", 1.1), ("sky", 1.4641), (".", 1.1)),
            ],
        ),
        ("", [("", 1.0)]),
        ("()", [("", 1.0)]),
        ("a) b] c:2) d: e", [("a) b] c:2) d: e", 1.0)]),
        ("(red : .5 )(cat:-1)", [("red ", 0.5), ("cat", -1.0)]),
        ("(a:1.2.3)(b:x)", [("a:1.2.3b:x", 1.1)]),
        ("[[less]]", [("less", 1 / 1.21)]),
        ("a\\", [("a\\", 1.0)]),
        (r"\\(b)", [("\\", 1.0), ("b", 1.1)]),
        ("two\n(lines)", [("two\n", 1.0), ("lines", 1.1)]),
    ],
)
def test_parts_and_weights(prompt, parts):
    found = parse(prompt)
    assert [text for text, _ in found] == [text for text, _ in parts]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in parts])


@hypothesis.given(st.text(alphabet="ab ()[]\\:.1"))
def test_any_prompt_keeps_its_letters(prompt):
    assert "".join(text for text, _ in parse(prompt)).count("a") == prompt.count("a")


@hypothesis.given(st.text(alphabet="ab:.1()[]\\"))
def test_an_escaped_prompt_is_text(prompt):
    escaped = "".join(f"\\{c}" if c in r"()[]\\" else c for c in prompt)
    assert parse(escaped) == [(prompt, 1.0)]
