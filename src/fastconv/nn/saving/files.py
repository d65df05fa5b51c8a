"""Reading and writing files: which format a name means, and that a file is whole or not there at all."""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WeightsError
from ..graph import Array
from ..layers.core import Layer, Weight
from . import keras_format
from .structure import config_of, model_from_config, places

if TYPE_CHECKING:
    from ..model import Model

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]

MODEL_SUFFIXES = (".keras", ".fastconv")
WEIGHT_SUFFIXES = (".weights.h5", ".safetensors", ".npz")


def _suffix(path: Path, known: tuple[str, ...], what: str) -> str:
    for suffix in known:
        if path.name.endswith(suffix):
            return suffix
    raise ValueError(f"{what}: the file's name must end in {', '.join(known)}, received {str(path)!r}")


@contextmanager
def _new_file(path: Path, overwrite: bool) -> Iterator[Path]:
    """A file beside the wanted one that takes its place when it is complete."""
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists, and overwrite is False")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent or ".")
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _named(model: Model) -> dict[str, Weight]:
    """Weights by names that do not depend on how often a layer's class was used before."""
    return {f"{place}/{w.name}": w for place, layer in places(model.layers).items() for w in layer.weights}


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError("safetensors files need safetensors: pip install 'fastconv[nn]'") from None
    return safetensors.numpy


# -------------------------------------------------------------------------------------------------------- weights


def save_weights(model: Model, filepath: str | Path, overwrite: bool = True) -> None:
    """Write the weights of a model; the end of the name says the format."""
    path = Path(filepath)
    suffix = _suffix(path, WEIGHT_SUFFIXES, "save_weights")
    with _new_file(path, overwrite) as new:
        if suffix == ".weights.h5":
            with keras_format.open_h5(new, "w") as file:
                keras_format.write(file, places(model.layers))
            return
        arrays = {name: np.ascontiguousarray(w.value) for name, w in _named(model).items()}
        if suffix == ".safetensors":
            new.write_bytes(_safetensors().save(arrays))
        else:
            with new.open("wb") as stream:
                np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_weights(model: Model, filepath: str | Path) -> None:
    """Read weights into a model; nothing changes if they do not fit."""
    path = Path(filepath)
    if path.name.endswith(".keras"):
        _load_keras_weights(model, path)
        return
    suffix = _suffix(path, WEIGHT_SUFFIXES, "load_weights")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if suffix == ".weights.h5":
        with _damaged(path), keras_format.open_h5(path, "r") as file:
            found = keras_format.read(file, places(model.layers), str(path))
        _assign(found)
        return
    with _damaged(path):
        if suffix == ".safetensors":
            arrays: Mapping[str, Array] = _safetensors().load(path.read_bytes())
        else:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
    _assign(_match(_named(model), arrays, str(path)))


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Whatever goes wrong in reading becomes an error that names the file."""
    try:
        yield
    except (WeightsError, ImportError, FileNotFoundError, MemoryError):
        raise
    except Exception as error:
        raise WeightsError(f"{path} is damaged, incomplete or of another kind: {error}") from error


def _match(wanted: Mapping[str, Weight], arrays: Mapping[str, Array], path: str) -> list[tuple[Weight, Array]]:
    """Weights with their arrays, all of them found and of the right shape."""
    missing, extra = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or extra:
        words = [f"{word} {', '.join(names[:4])}{' ...' if len(names) > 4 else ''}"
                 for word, names in (("it lacks", missing), ("it has in addition", extra)) if names]  # fmt: skip
        raise WeightsError(f"{path} holds the weights of another model: {'; '.join(words)}")
    for name, weight in wanted.items():
        if arrays[name].shape != weight.shape:
            raise WeightsError(
                f"{path} holds the weights of another model: {name} has shape {arrays[name].shape} there, but "
                f"{weight.shape} here"
            )
    return [(weight, arrays[name]) for name, weight in wanted.items()]


def _assign(found: list[tuple[Weight, Array]]) -> None:
    for weight, array in found:
        weight.value[...] = array


# --------------------------------------------------------------------------------------------------------- models


def save_model(model: Model, filepath: str | Path, overwrite: bool = True) -> None:
    """Write a model: graph, weights, and how it is trained with the optimizer's state."""
    path = Path(filepath)
    suffix = _suffix(path, MODEL_SUFFIXES, "save")
    described = config_of(model)
    with _new_file(path, overwrite) as new, zipfile.ZipFile(new, "w") as archive:
        archive.writestr("config.json", json.dumps(described))
        if suffix == ".keras":
            now = datetime.now(timezone.utc).strftime("%Y-%m-%d@%H:%M:%S")
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": now}))
            stream = io.BytesIO()
            with keras_format.open_h5(stream, "w") as file:
                keras_format.write(file, places(model.layers), model.optimizer if model.compiled else None)
            archive.writestr("model.weights.h5", stream.getvalue())
            return
        for name, array in {**{n: w.value for n, w in _named(model).items()}, **_optimizer_state(model)}.items():
            with archive.open(f"arrays/{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def load_model(
    filepath: str | Path, custom_objects: Mapping[str, type[Layer]] | None = None, compile: bool = True, **other: Any
) -> Model:
    """Read a model that ``save`` or Keras wrote.

    Parameters
    ----------
    filepath : str or Path
        A ``.keras`` or ``.fastconv`` file.
    custom_objects : dict, optional
        Own layer classes by name.
    compile : bool, default True
        Whether to go on training as before, where the file says how.

    Returns
    -------
    Model

    Raises
    ------
    WeightsError
        A damaged or incomplete file, or layers that are not known.
    FileNotFoundError
    """
    path = Path(filepath)
    suffix = _suffix(path, MODEL_SUFFIXES, "load_model")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with _damaged(path), zipfile.ZipFile(path) as archive:
        if broken := archive.testzip():
            raise WeightsError(f"{path} is damaged: {broken}")
        described = json.loads(archive.read("config.json"))
        model, where = model_from_config(described, custom_objects, compile)
        if suffix == ".keras":
            with keras_format.open_h5(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                _assign(keras_format.read(file, where, str(path), prefix=""))
                if model.compiled:
                    keras_format.read_optimizer(file, model)
            return model
        arrays = {
            name[len("arrays/") : -len(".npy")]: np.lib.format.read_array(io.BytesIO(archive.read(name)))
            for name in archive.namelist() if name.startswith("arrays/")
        }  # fmt: skip
    state = {n: arrays.pop(n) for n in list(arrays) if n.startswith("optimizer/")}
    _assign(_match(_named(model), arrays, str(path)))
    if model.compiled and state:
        model.optimizer.iterations = int(state["optimizer/iterations"])
        for name, array in model.optimizer_arrays().items():
            if f"optimizer/{name}" in state and state[f"optimizer/{name}"].shape == array.shape:
                array[...] = state[f"optimizer/{name}"]
    return model


def _load_keras_weights(model: Model, path: Path) -> None:
    """Weights out of a whole Keras model."""
    with _damaged(path):
        with zipfile.ZipFile(path) as archive:
            stream = io.BytesIO(archive.read("model.weights.h5"))
        with keras_format.open_h5(stream, "r") as file:
            found = keras_format.read(file, places(model.layers), str(path))
    _assign(found)


def _optimizer_state(model: Model) -> dict[str, Array]:
    if not model.compiled or model.optimizer.flat is None:
        return {}
    arrays = {f"optimizer/{n}": a for n, a in model.optimizer_arrays().items()}
    return arrays | {"optimizer/iterations": np.array(model.optimizer.iterations)}
