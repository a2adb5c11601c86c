"""The prepared data of `emoji`: a TFDS builder that writes ArrayRecord files. Importing this imports TFDS."""

import contextlib
import dataclasses
import io
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow_datasets as tfds

from t2i_jax.data import emoji

tfds.core.utils.gcs_utils._is_gcs_disabled = True  # no probe of cloud storage: it is slow and loud without a network


@dataclasses.dataclass(eq=False)
class EmojiConfig(tfds.core.BuilderConfig):
    """One for each resolution (pixels a side)."""

    resolution: int = 32


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Emoji in three art styles. A change of what is selected, its captions or its pixels needs a new VERSION."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [EmojiConfig(name=f"{side}px", resolution=side) for side in emoji.RESOLUTIONS]  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The npm archives of emoji.PACKAGES, named as `npm pack` names them."

    def _info(self):
        side = self.builder_config.resolution
        features = {
            "image": tfds.features.Tensor(shape=(side, side, 3), dtype=np.uint8, encoding="bytes"),
            "caption": tfds.features.Text(),
            "style": tfds.features.Text(),
            "code": tfds.features.Text(),
        }
        # not shuffled: the pipeline draws its own order, and so the index of an emoji is the place of its record
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        drawn = emoji.draw(Path(dl_manager.manual_dir), self.builder_config.resolution)
        (Path(self.data_path) / "ATTRIBUTION.md").write_text(emoji.ATTRIBUTION, encoding="utf-8")
        return {split: self._generate_examples(drawn, split) for split in emoji.SPLITS}

    def _generate_examples(self, drawn, split):
        for index, example in enumerate(e for e in drawn if e["split"] == split):
            yield index, {name: example[name] for name in self.info.features}

    def prepare(self, downloads: Path) -> None:
        """Writes all splits. TFDS writes beside the final directory and renames it, so what is there is whole."""
        tfds.disable_progress_bar()  # `emoji.draw`, which is nearly all of the work, shows its own
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=downloads))
        except OSError:
            if not self.data_path.exists():  # if it is there, another process was quicker: its data are the same
                raise
