"""Writing a temperature into the card of a ``.keras`` file, without Keras."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from segfocal.card import Card
from segfocal.card_files import read_card
from segfocal.errors import ModelError
from segfocal.io import PendingOutput
from segfocal.io.pending import writing

__all__ = ["require_storable", "store_temperature"]

CONFIG = "config.json"


def require_storable(model: Any) -> Path:
    """Return the path of a model whose card can be written to.

    Raises:
        ModelError: It is no ``.keras`` file, or one of regions that overlap.
    """
    if not isinstance(model, str | Path) or Path(model).suffix.lower() != ".keras":
        what = str(model) if isinstance(model, str | Path) else type(model).__name__
        raise ModelError(
            f"{what}: a temperature is stored in a .keras file, and exports of it carry it; "
            "expected the path of one: save the model, or calibrate it before it is exported"
        )
    if read_card(model).task == "regions":
        raise ModelError(
            f"{model}: its regions overlap, and a temperature is for exclusive classes; expected a "
            "model of the task classes"
        )
    return Path(model)


def store_temperature(path: Path, temperature: float) -> Card:
    """Write a temperature into a model's card; all else in the file stays, byte by byte.

    The file is replaced when the new one is complete.

    Returns:
        The card as it is then.

    Raises:
        ModelError: The file is not a model.
        OutputError: It cannot be written.
    """
    card = read_card(path)
    # Validated anew: a copy would not be.
    card = Card.from_json({**card.model_dump(mode="json"), "temperature": temperature}, str(path))
    with PendingOutput(path, overwrite=True) as pending, writing(path):
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(pending.main, "w") as target:
            for entry in source.infolist():
                if entry.filename == CONFIG:
                    config = json.loads(source.read(entry))
                    config["config"]["card"] = card.model_dump(mode="json")
                    target.writestr(entry, json.dumps(config))
                    continue
                with source.open(entry) as old, target.open(entry, "w") as new:
                    shutil.copyfileobj(old, new, 1 << 20)
        pending.commit()
    return card
