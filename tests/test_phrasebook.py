"""Every line of the documentation's tables: ours on two backends, and against the library it is compared with."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from phrasebook import LIBRARIES, RULES, TABLES, Row, Rule, Table, spelling
from support import without

import fastconv
from fastconv import nn
from fastconv.testing import assert_close, tolerance, values

# before anything imports Keras, as TensorFlow does; KERAS_BACKEND=tensorflow tests it there
os.environ.setdefault("KERAS_BACKEND", "torch")
# on PyTorch it repeats the edge here, and averages that: the page says so
NOT_KERAS_ON_TORCH = ("average pooling, the same size (not as Keras on PyTorch)", 'mean, "same"')
CI_HAS = ("torch", "onnx")  # what is a failure where oracles are required; the others skip


def numbers(*shape: int, name: str = "x", dtype: str = "float32") -> np.ndarray:
    return values("normal", shape, dtype, name)


def positive(*shape: int, name: str) -> np.ndarray:
    return np.abs(numbers(*shape, name=name)) + np.float32(0.5)


CHANNELS = {
    "mean": numbers(3, name="mean"),
    "var": positive(3, name="var"),
    "gamma": numbers(3, name="gamma"),
    "beta": numbers(3, name="beta"),
}
GIVEN: dict[str, dict[str, np.ndarray]] = {
    "pytorch": {
        "x": numbers(2, 3, 12, 14),
        "w": numbers(4, 3, 3, 3, name="w"),
        "b": numbers(4, name="b"),
        "d": numbers(3, 1, 3, 3, name="d"),
        "dy": numbers(2, 4, 12, 14, name="dy"),
        "s": numbers(2, 3, 21, name="s"),
        "ws": numbers(4, 3, 5, name="ws"),
        "v": numbers(1, 2, 5, 6, 7, name="v"),
        "wv": numbers(4, 2, 3, 3, 3, name="wv"),
        **CHANNELS,
    },
    "keras": {
        "x": numbers(2, 12, 14, 3),
        "w": numbers(3, 3, 3, 4, name="w"),
        "d": numbers(3, 3, 3, 1, name="d"),
        "e": numbers(1, 1, 3, 4, name="e"),
        "t": numbers(3, 3, 4, 3, name="t"),
        "s": numbers(2, 21, 3, name="s"),
        **CHANNELS,
    },
    "scipy": {
        "image": numbers(24, 31, dtype="float64"),
        "k": numbers(3, 3, name="k", dtype="float64"),
        "even": numbers(2, 4, name="even", dtype="float64"),
        "volume": numbers(6, 7, 8, name="volume", dtype="float64"),
        "k3": numbers(3, 3, 3, name="k3", dtype="float64"),
        "sound": numbers(50, name="sound", dtype="float64"),
        "taps": numbers(7, name="taps", dtype="float64"),
    },
    "opencv": {
        "image": numbers(24, 30),
        "photo": values("integers", (20, 22, 3), "uint8", "photo"),
        "k": numbers(3, 3, name="k"),
        "row": numbers(5, name="row"),
        "column": numbers(5, name="column"),
        "g": np.array([1, 4, 6, 4, 1], np.float32) / 16,
    },
}
ROWS = [pytest.param(name, table, row, id=f"{name}-{row.what}") for name, table in TABLES.items() for row in table.rows]


def to_torch(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


def to_keras(array: np.ndarray) -> Any:
    import keras

    return keras.ops.convert_to_tensor(array)


def as_array(result: Any) -> np.ndarray:
    """A tensor of whatever library as an array."""
    return np.asarray(result.detach().numpy() if hasattr(result, "detach") else result)


def same(ours: Any, theirs: Any, what: str) -> None:
    """Equal up to rounding of either; indices exactly."""
    ours, theirs = as_array(ours), as_array(theirs)
    assert ours.size > 1, what
    if ours.dtype.kind in "iu":
        assert_close(ours, theirs, 0, what)
        return
    wide = theirs.astype(np.float64)
    magnitude = np.full(theirs.shape, np.abs(wide).max())
    kind = "float32" if "float32" in (str(ours.dtype), str(theirs.dtype)) else "float64"
    assert_close(ours, theirs, tolerance(kind, 256, magnitude), what)


def evaluate(code: str, names: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other libraries warn of their own affairs
        return eval(code, dict(names))


def ours(code: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Our side, on the default backend; the reference must say the same."""
    names = {"fastconv": fastconv, "nn": nn, "np": np, **arrays}
    found = evaluate(code, names)
    with fastconv.use_backend("reference"):
        same(found, evaluate(code, names), f"{code} on the reference")
    return as_array(found)


def load(package: str, what: str) -> None:
    """Have a library, or skip."""
    if package == "keras" and os.environ["KERAS_BACKEND"] == "torch" and what in NOT_KERAS_ON_TORCH:
        pytest.skip("Keras on PyTorch has another rule")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(package)
    except ImportError:
        if package in CI_HAS:
            without(package)
        pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize(("name", "table", "row"), ROWS)
def test_you_write_here_you_write(name: str, table: Table, row: Row) -> None:
    arrays = GIVEN[name]
    found = ours(row.ours, arrays)
    load(table.package, row.what)
    names: dict[str, Any] = {"os": os}
    exec(table.imports, names)
    convert = {"pytorch": to_torch, "keras": to_keras}.get(name, np.asarray)
    same(found, evaluate(row.theirs, names | {k: convert(v) for k, v in arrays.items()}), row.what)


def test_the_tables_explain_their_names() -> None:
    """Each array that rows use is told of on the page, and none that they do not use."""
    for name, table in TABLES.items():
        told = set(table.given.split("`")[1::2])
        assert told == set(GIVEN[name]), name
        text = " ".join(row.theirs + row.ours for row in table.rows)
        for each in told:
            assert each in text, f"{name}: {each}"


# ------------------------------------------------------------------------------------------------- rules, side by side

FIRST = {
    "x": numbers(2, 3, 12, 14),
    "w": numbers(4, 3, 3, 3, name="w"),
    "w4": numbers(4, 3, 4, 4, name="w4"),
    "t": numbers(3, 4, 3, 3, name="t"),
    "s": numbers(2, 3, 21, name="s"),
    "ws": numbers(4, 3, 3, name="ws"),
}
RULE_IDS = [
    pytest.param(rule, library, id=f"{group}-{rule.name}-{library}")
    for group, rules in RULES.items()
    for rule in rules
    for library in LIBRARIES
]


def channels_last(name: str, array: np.ndarray) -> np.ndarray:
    """Data (N, C, ...) and weights (K, C, ...) as TensorFlow and Keras take them."""
    if name in ("x", "s"):
        return np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return np.ascontiguousarray(np.moveaxis(array, (0, 1), (-1, -2)))


class OnnxNodes(dict[str, Any]):
    """A name of an operator is a function that runs one node of it; positional arrays are its inputs."""

    def __missing__(self, operator: str) -> Callable[..., np.ndarray]:
        if not operator[0].isupper():
            raise KeyError(operator)

        def run(*inputs: Any, **attributes: Any) -> np.ndarray:
            arrays = [np.asarray(a, np.int64) if isinstance(a, list) else a for a in inputs]
            return run_onnx(operator, arrays, attributes)

        return run


def run_onnx(operator: str, arrays: list[np.ndarray], attributes: dict[str, Any]) -> np.ndarray:
    """One node: by ONNX Runtime where it is installed, else by ONNX's own reference evaluator."""
    from onnx import helper

    names = [f"i{i}" for i in range(len(arrays))]
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in zip(names, arrays, strict=True)
    ]
    output = helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(arrays[0].dtype), None)
    graph = helper.make_graph([helper.make_node(operator, names, ["y"], **attributes)], "one", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    feeds = dict(zip(names, arrays, strict=True))
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize(("rule", "library"), RULE_IDS)
def test_rule(rule: Rule, library: str) -> None:
    """The same numbers from every library that has the rule."""
    found = ours(f"fastconv.{rule.ours}", FIRST)
    _, code = spelling(getattr(rule, library))
    if not code:
        pytest.skip(f"{LIBRARIES[library]} has no such rule")
    load({"pytorch": "torch", "tensorflow": "tensorflow", "keras": "keras", "onnx": "onnx"}[library], rule.name)
    last = {name: channels_last(name, array) for name, array in FIRST.items()}
    if library == "pytorch":
        import torch

        names: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
        theirs = evaluate(code, names | {name: torch.from_numpy(a) for name, a in FIRST.items()})
    elif library == "onnx":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = eval(code, {}, OnnxNodes(FIRST))
    else:
        module = importlib.import_module(library)
        convert = to_keras if library == "keras" else np.asarray
        theirs = evaluate(code, {"keras": module, "tf": module} | {k: convert(v) for k, v in last.items()})
        theirs = np.moveaxis(as_array(theirs), -1, 1)
    same(found, theirs, rule.name)
