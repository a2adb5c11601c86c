"""The page in a browser (Gradio): a tab for each ability of the model."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from t2i_jax.core.arguments import MAX_SEED
from t2i_jax.runs.drawn_picture import read_drawn
from t2i_jax.serve.controls import make_controls, settings_fields
from t2i_jax.serve.worker import MAX_PICTURES, MAX_PROMPT, Busy, Worker, check_request

KEEP_SECONDS = 3_600  # how long pictures stay in Gradio's folder
EXAMPLE = "a large red circle"  # of a caption, where the data is `shapes`


def make_page(worker: Worker, name: str) -> gr.Blocks:
    """Return the page of a model. name: of the model, for the title."""
    pipe = worker.pipe
    abilities = pipe.family.abilities
    about = f"# {name}\nA model of the family `{pipe.config.family}`; weights `{pipe.weights}`."
    with gr.Blocks(
        title=name, analytics_enabled=False, delete_cache=(KEEP_SECONDS, KEEP_SECONDS)
    ) as page:
        gr.Markdown(about)
        if "sample" in abilities:
            with gr.Tab("Draw"):
                _add_drawing(worker)
        if "edit" in abilities:
            with gr.Tab("Edit"):
                _add_editing(worker)
        if "inpaint" in abilities:
            with gr.Tab("Inpaint"):
                _add_inpainting(worker)
        if "caption" in abilities:
            with gr.Tab("Caption"):
                _add_captioning(worker)
    return page.queue(default_concurrency_limit=None)  # the worker keeps the line


def _add_drawing(worker: Worker) -> None:
    fields = settings_fields(worker.pipe.config, worker.pipe.family, "sample")
    value = EXAMPLE if worker.pipe.config.data.name == "shapes" else ""
    with gr.Row():
        with gr.Column():
            prompt, seed, num, button = _request_controls("Draw", value)
            controls = _settings_controls(fields)
        with gr.Column():
            gallery, said = _results()
            with gr.Accordion("Recover the settings of a picture", open=False):
                file = gr.File(label="a PNG file that this program drew", type="filepath")
                recover = gr.Button("Recover")

    def draw(prompt, seed, num, *values):
        settings = dict(zip(fields, values, strict=True))
        check_request([prompt], num, settings)
        return worker.run(lambda pipe: pipe(prompt, num=num, seed=seed, **settings).images)

    def find(path):
        told, _ = read_drawn(path)
        settings = [told["settings"].get(name, field.default) for name, field in fields.items()]
        note = "its settings are set: press Draw"
        if told["weights"] != worker.pipe.weights:
            note = f"it was drawn by the weights {told['weights']}, not by this model; {note}"
        if told["index"]:
            note += f"; it was picture {told['index'] + 1} of its call"
        return told["prompt"], told["seed"], *settings, note

    inputs = [prompt, seed, num, *controls.values()]
    _when(button, _told(draw), inputs, [gallery, said], "draw")
    _when(recover, find, [file], [prompt, seed, *controls.values(), said], "recover")


def _add_editing(worker: Worker) -> None:
    fields = settings_fields(worker.pipe.config, worker.pipe.family, "edit")
    with gr.Row():
        with gr.Column():
            image = gr.Image(type="pil", label="the picture", image_mode="RGB", format="png")
            prompt, seed, num, button = _request_controls("Edit")
            controls = _settings_controls(fields)
        with gr.Column():
            gallery, said = _results()

    def edit(image, prompt, seed, num, *values):
        if image is None:
            raise ValueError("there is no picture to edit: add one")
        settings = dict(zip(fields, values, strict=True))
        check_request([prompt], num, settings)
        return worker.run(lambda pipe: pipe.edit(prompt, image, num, seed, **settings).images)

    inputs = [image, prompt, seed, num, *controls.values()]
    _when(button, _told(edit), inputs, [gallery, said], "edit")


def _add_inpainting(worker: Worker) -> None:
    fields = settings_fields(worker.pipe.config, worker.pipe.family, "inpaint")
    with gr.Row():
        with gr.Column():
            editor = gr.ImageEditor(
                type="pil",
                label="paint over what to draw anew",
                format="png",
                transforms=(),
                brush=gr.Brush(colors=["#ff00ff"], color_mode="fixed"),
            )
            prompt, seed, num, button = _request_controls("Inpaint")
            controls = _settings_controls(fields)
        with gr.Column():
            gallery, said = _results()

    def inpaint(drawn, prompt, seed, num, *values):
        image, mask = split_editor(drawn)
        settings = dict(zip(fields, values, strict=True))
        check_request([prompt], num, settings)
        return worker.run(
            lambda pipe: pipe.inpaint(prompt, image, mask, num, seed, **settings).images
        )

    inputs = [editor, prompt, seed, num, *controls.values()]
    _when(button, _told(inpaint), inputs, [gallery, said], "inpaint")


def _add_captioning(worker: Worker) -> None:
    image = gr.Image(type="pil", label="the picture", image_mode="RGB", format="png")
    button, said = gr.Button("Caption", variant="primary"), gr.Markdown()

    def caption(image):
        if image is None:
            raise ValueError("there is no picture to caption: add one")
        (texts, _) = worker.run(lambda pipe: pipe.caption(image))
        return texts[0]

    _when(button, caption, [image], [said], "caption")


def split_editor(drawn: Any) -> tuple[Image.Image, Image.Image]:
    """Return (picture, mask) of what Gradio's ImageEditor gives; the mask is white where painted.

    Raises ValueError if there is no picture, or nothing is painted.
    """
    if not drawn or drawn.get("background") is None:
        raise ValueError("there is no picture to inpaint: add one")
    image = drawn["background"]
    painted = np.zeros((image.height, image.width), bool)
    for layer in drawn["layers"]:
        painted |= np.asarray(layer.convert("RGBA").resize(image.size))[..., 3] > 0
    if not painted.any():
        raise ValueError("nothing is painted: paint over what to draw anew")
    return image.convert("RGB"), Image.fromarray(painted.astype(np.uint8) * 255)


def _request_controls(action: str, value: str = "") -> tuple[Any, Any, Any, Any]:
    prompt = gr.Textbox(value, label="prompt", max_length=MAX_PROMPT)
    with gr.Row():
        seed = gr.Number(0, label="seed", precision=0, minimum=0, maximum=MAX_SEED)
        num = gr.Slider(1, MAX_PICTURES, value=4, step=1, label="pictures")
    return prompt, seed, num, gr.Button(action, variant="primary")


def _settings_controls(fields) -> dict[str, Any]:
    with gr.Accordion("Settings", open=False):
        return make_controls(fields)


def _results() -> tuple[Any, Any]:
    gallery = gr.Gallery(show_label=False, format="png", columns=4, object_fit="contain")
    return gallery, gr.Markdown()


def _told(task: Callable) -> Callable:
    """Return `task` with the warnings of its request as a line below the pictures."""

    def run(*values):
        images, told = task(*values)
        return images, "; ".join(told)

    return run


def _when(button, task: Callable, inputs: list, outputs: list, name: str) -> None:
    """Run `task` when a button is pressed. What a user can mend is shown on the page."""

    def run(*values):
        try:
            return task(*values)
        except (ValueError, FileNotFoundError, Busy) as error:
            raise gr.Error(str(error), duration=None) from error

    button.click(run, inputs, outputs, api_name=name)
