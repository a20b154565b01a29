"""Weights & Biases as a writer of SB3's logger."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from stable_baselines3.common.logger import Figure, HParam, Image, KVWriter, Video

from textgym.extras import require
from textgym.files import atomic_write

_ID = "wandb-id"


class WandbLog(KVWriter):
    """Sends figures, texts and pictures to Weights & Biases.

    Where and how is said by its own environment variables: `WANDB_PROJECT` (`textgym` if it is not
    set), `WANDB_MODE=offline`, `WANDB_API_KEY`. A directory goes on with the run that it began,
    whose id it keeps in the file `wandb-id`. Steps that were sent before are left out then.

        model.set_logger(Logger(None, [WandbLog("runs/one")]))

    Args:
        folder: Directory of the run. Its `config.yaml`, if it has one, becomes the run's settings.

    Raises:
        textgym.extras.MissingExtra: If wandb is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._wandb: Any = import_wandb()
        kept, config = folder / _ID, folder / "config.yaml"
        run_id = kept.read_text(encoding="utf-8").strip() if kept.is_file() else None
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "textgym"),
            name=None if run_id else folder.resolve().name,
            dir=str(folder),
            id=run_id,
            resume="allow",
            config=yaml.safe_load(config.read_text(encoding="utf-8")) if config.is_file() else None,
        )
        atomic_write(kept, f"{self._run.id}\n")

    def write(
        self,
        key_values: dict[str, Any],
        key_excluded: dict[str, tuple[str, ...]],
        step: int = 0,
    ) -> None:
        """Send what was logged; see SB3."""
        if step < self._run.step:
            return
        row = {}
        for key, value in key_values.items():
            if "wandb" in (key_excluded.get(key) or ()):
                continue
            if isinstance(value, HParam):
                self._run.config.update(value.hparam_dict, allow_val_change=True)
            else:
                row[key] = self._as_wandb(value)
        self._run.log(row, step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()

    def _as_wandb(self, value: Any) -> Any:
        """A value of SB3's logger as wandb takes it."""
        if isinstance(value, str):
            return self._wandb.Html(f"<pre>{escape(value)}</pre>")
        if isinstance(value, Image):
            return self._wandb.Image(_height_width_channels(value))
        if isinstance(value, Figure):
            return self._wandb.Image(value.figure)
        if isinstance(value, Video):
            return self._wandb.Video(value.frames[0].cpu().numpy(), fps=value.fps)
        if isinstance(value, (np.ndarray, torch.Tensor)):
            return self._wandb.Histogram(np.asarray(value).reshape(-1))
        return value


def import_wandb() -> Any:
    """The package.

    Raises:
        textgym.extras.MissingExtra: If it is not installed.
    """
    return require("wandb", extra="wandb", wanted_by="logger 'wandb'")


def _height_width_channels(image: Image) -> Any:
    """The pixels of an image as `(height, width, channels)`, or the path that SB3 was given."""
    if isinstance(image.image, str):
        return image.image
    pixels = np.asarray(image.image)
    order = image.dataformats.upper()
    return pixels.transpose([order.index(axis) for axis in "HWC" if axis in order])
