"""The prepared data of `emoji`: a TFDS builder that writes ArrayRecord files.

Importing this module imports TFDS.
"""

import contextlib
import dataclasses
import io
import os
from pathlib import Path
from typing import cast

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import gcs_utils

from t2i_jax.data import emoji

# No probe of cloud storage: it is slow and loud without a network.
gcs_utils._is_gcs_disabled = True


FEATURES = ("image", "caption", "style", "code")


@dataclasses.dataclass(eq=False)
class EmojiConfig(tfds.core.BuilderConfig):
    """The settings of the builder.

    resolution: pixels a side.
    """

    resolution: int = 32


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Emoji in three art styles.

    A change of what is selected, of captions or of pixels needs a new VERSION.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        EmojiConfig(name=f"{side}px", resolution=side) for side in emoji.RESOLUTIONS
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "The npm archives of emoji.PACKAGES, named as `npm pack` names them."
    )

    @property
    def settings(self) -> EmojiConfig:
        """The config of this builder."""
        return cast(EmojiConfig, self.builder_config)

    def _info(self):
        side = self.settings.resolution
        features = {
            "image": tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes"),
            "caption": tfds.features.Text(),
            "style": tfds.features.Text(),
            "code": tfds.features.Text(),
        }
        # Not shuffled, so that the index of an emoji is the place of its record. The input pipeline
        # draws its own order.
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        examples = emoji.decode_archives(Path(dl_manager.manual_dir), self.settings.resolution)
        (Path(self.data_path) / "ATTRIBUTION.md").write_text(emoji.ATTRIBUTION, encoding="utf-8")
        return {split: self._generate_examples(examples, split) for split in emoji.SPLITS}

    def _generate_examples(self, examples, split):
        for index, example in enumerate(e for e in examples if e["split"] == split):
            yield index, {name: example[name] for name in FEATURES}

    def prepare(self, downloads: Path) -> None:
        """Write all splits.

        TFDS writes next to the final folder and renames it, so that what is there is complete.
        """
        tfds.disable_progress_bar()  # `emoji.decode_archives` shows its own
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.download_and_prepare(
                    download_config=tfds.download.DownloadConfig(manual_dir=downloads)
                )
        except OSError:
            if not self.data_path.exists():  # else another process was faster, with the same data
                raise
