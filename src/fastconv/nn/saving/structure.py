"""A graph as a dict in Keras' words, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .. import initializers, losses, metrics, optimizers, regularizers, schedules
from ..errors import WeightsError
from ..graph import Node, Tensor, snake_case
from ..layers import LAYERS
from ..layers.activation import Activation, Elementwise
from ..layers.core import InputLayer, Layer

if TYPE_CHECKING:
    from ..model import Model

__all__ = ["config_of", "model_from_config", "places"]

# what only this package has is not offered under Keras' name
_OWN = ("RandomAffine",)
_MODELS = ("Functional", "Sequential", "Model")


def places(layers: Iterable[Layer]) -> dict[str, Layer]:
    """Layers by Keras' names in files: the class in small letters, numbered from the second on."""
    result: dict[str, Layer] = {}
    used: dict[str, int] = {}
    for layer in layers:
        result[_place(snake_case(type(layer).__name__), used)] = layer
    return result


def _place(name: str, used: dict[str, int]) -> str:
    count = used.get(name, 0)
    used[name] = count + 1
    return f"{name}_{count}" if count else name


# ------------------------------------------------------------------------------------------------------- to a dict


def config_of(model: Model) -> dict[str, Any]:
    """The model as a dict that Keras reads too."""
    from ..model import Sequential

    if isinstance(model, Sequential) and _is_chain(model):
        first = model.inputs[0].node.layer
        layers = [_describe(layer) for layer in (first, *model.layers)]
        config: dict[str, Any] = {
            "name": model.name, "trainable": True, "dtype": "float32", "layers": layers,
            "build_input_shape": list(model.input_shape),
        }  # fmt: skip
        result = {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
    else:
        result = _functional(model)
    result["compile_config"] = _compile_config(model)
    return result


def _is_chain(model: Model) -> bool:
    return all(len(node.inputs) <= 1 for node in model.nodes) and len(model.nodes) == len(model.layers) + 1


def _functional(model: Model) -> dict[str, Any]:
    number: dict[Node, int] = {}
    of_layer: dict[Layer, list[Node]] = {}
    for node in model.nodes:
        number[node] = len(of_layer.setdefault(node.layer, []))
        of_layer[node.layer].append(node)

    def tensor(t: Tensor) -> dict[str, Any]:
        history = [t.name, number[t.node], 0]
        return {
            "class_name": "__keras_tensor__",
            "config": {"shape": list(t.shape), "dtype": str(t.node.layer.dtype), "keras_history": history},
        }

    layers = []
    for layer in model.layers:
        calls: list[dict[str, Any]] = []
        for node in of_layer[layer]:
            given = [tensor(t) for t in node.inputs]
            if given:
                calls.append({"args": [given] if layer.many else given, "kwargs": {}})
        layers.append(_describe(layer) | {"name": layer.name, "inbound_nodes": calls})

    def ends(tensors: list[Tensor]) -> list[list[Any]]:
        return [[t.name, number[t.node], 0] for t in tensors]

    config = {
        "name": model.name, "trainable": True, "layers": layers, "input_layers": ends(model.inputs),
        "output_layers": ends(model.outputs),
    }  # fmt: skip
    return {
        "module": "keras.src.models.functional", "class_name": "Functional", "config": config,
        "registered_name": "Functional",
    }  # fmt: skip


def _describe(layer: Layer) -> dict[str, Any]:
    name = type(layer).__name__
    own = type(layer) not in LAYERS or name in _OWN
    config = {k: _plain(v) for k, v in layer.get_config().items()}
    if "activation" in config and config["activation"] is None:
        config["activation"] = "linear"
    described = {
        "module": "fastconv.nn" if own else "keras.layers", "class_name": name, "config": config,
        "registered_name": f"fastconv>{name}" if own else None,
    }  # fmt: skip
    if layer.own_weights and layer.nodes:
        shapes = [list(t.shape) for t in layer.nodes[0].inputs]
        described["build_config"] = {"input_shape": shapes if layer.many else shapes[0]}
    return described


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    for kinds, module in (
        (initializers.Initializer, "keras.initializers"),
        (regularizers.L1L2, "keras.regularizers"),
        (schedules.LearningRateSchedule, "keras.optimizers.schedules"),
    ):
        if isinstance(value, kinds):
            config = {k: _plain(v) for k, v in value.get_config().items()}
            return {"module": module, "class_name": type(value).__name__, "config": config, "registered_name": None}
    if isinstance(value, Activation):
        return value.label
    if isinstance(value, Elementwise):
        return _describe(value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.item() if hasattr(value, "item") else getattr(value, "__name__", str(value))


def _compile_config(model: Model) -> dict[str, Any]:
    if not model.compiled:
        return {}
    optimizer, objective = model.optimizer, model.objective
    config = {k: _plain(v) for k, v in optimizer.get_config().items()}
    name = type(optimizer).__name__

    def one(value: Any) -> Any:
        if isinstance(value, losses.Loss):
            inner = value.get_config() | {"reduction": "sum_over_batch_size"}
            known = type(value).__module__ == losses.__name__
            module = "keras.losses" if known else "fastconv.nn"
            return {"module": module, "class_name": type(value).__name__, "config": inner, "registered_name": None}
        if isinstance(value, metrics.Metric):
            return value.name
        if isinstance(value, (list, tuple)):
            return [one(v) for v in value]
        if isinstance(value, dict):
            return {k: one(v) for k, v in value.items()}
        return value if value is None or isinstance(value, str) else getattr(value, "__name__", str(value))

    return {
        "optimizer": {
            "module": "keras.optimizers", "class_name": name, "config": config, "registered_name": None
        },
        "loss": one(objective.loss), "loss_weights": objective.loss_weights, "metrics": one(objective.metrics) or None,
        "weighted_metrics": None,
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------- from a dict


class Reader:
    """Makes a model from its dict, and notes where each layer's weights lie in a Keras file."""

    def __init__(self, custom_objects: Mapping[str, Any] | None) -> None:
        self.classes: dict[str, Any] = {c.__name__: c for c in LAYERS} | dict(custom_objects or {})
        self.places: dict[str, Layer] = {}

    def model(self, described: dict[str, Any], at: str = "layers") -> Model:
        """The model of a dict."""
        kind, config = described.get("class_name"), described.get("config", {})
        if kind == "Sequential":
            return self._sequential(config, at)
        if kind in ("Functional", "Model"):
            return self._functional(config, at)
        raise WeightsError(f"a model of class {kind!r} cannot be read, only Sequential and Functional ones")

    def _layer(self, described: dict[str, Any], at: str, used: dict[str, int]) -> Any:
        name, config = described["class_name"], dict(described["config"])
        place = f"{at}/{_place(snake_case(name), used)}"
        if name in _MODELS:
            return self.model(described, f"{place}/layers")
        cls = self.classes.get(name)
        if cls is None:
            raise WeightsError(
                f"layer {config.get('name')!r} is of class {name!r}, which is not known; give it by "
                f"custom_objects={{{name!r}: ...}}"
            )
        layer: Layer = cls.from_config(_known(config, name))
        self.places[place] = layer
        return layer

    def _sequential(self, config: dict[str, Any], at: str) -> Model:
        from ..model import Sequential

        model, used = Sequential(name=config.get("name")), {}  # type: ignore[var-annotated]
        for described in config["layers"]:
            # Keras does not list the input among the layers of a Sequential model
            layer = self._layer(described, at, {} if described["class_name"] == "InputLayer" else used)
            model.add(layer)
        if not model._built and config.get("build_input_shape"):
            model.build(tuple(config["build_input_shape"]))
        return model

    def _functional(self, config: dict[str, Any], at: str) -> Model:
        from ..model import Model

        used: dict[str, int] = {}
        layers: dict[str, Any] = {}
        waiting: list[tuple[str, int, dict[str, Any]]] = []
        made: dict[tuple[str, int], Any] = {}
        for described in config["layers"]:
            layer = self._layer(described, at, used)
            name = described.get("name") or described["config"]["name"]
            layers[name] = layer
            if isinstance(layer, InputLayer):
                made[name, 0] = layer.output
            waiting.extend((name, i, call) for i, call in enumerate(described.get("inbound_nodes", [])))
        while waiting:
            later = []
            for name, i, call in waiting:
                given = call["args"][0] if isinstance(call, dict) and call.get("args") else None
                if given is None:
                    raise WeightsError(f"the calls of layer {name!r} are written in a way that is not known")
                tensors = [_history(t) for t in (given if isinstance(given, list) else [given])]
                if all(t in made for t in tensors):
                    inputs = [made[t] for t in tensors]
                    made[name, i] = layers[name](inputs if isinstance(given, list) else inputs[0])
                else:
                    later.append((name, i, call))
            if len(later) == len(waiting):
                raise WeightsError("the graph in the file has a circle, or calls of layers that are not in it")
            waiting = later
        inputs = [made[e] for e in _ends(config["input_layers"])]
        outputs = [made[e] for e in _ends(config["output_layers"])]
        return Model(inputs, outputs, name=config.get("name"))


def _history(tensor: dict[str, Any]) -> tuple[str, int]:
    name, node, _ = tensor["config"]["keras_history"]
    return name, node


def _ends(described: Any) -> list[tuple[str, int]]:
    if isinstance(described, dict):
        described = list(described.values())
    if described and isinstance(described[0], str):
        described = [described]
    return [(name, node) for name, node, _ in described]


_IGNORED = (
    "activity_regularizer", "kernel_constraint", "bias_constraint", "depthwise_constraint", "pointwise_constraint",
    "beta_constraint", "gamma_constraint", "quantization_config", "lora_rank", "synchronized", "renorm",
    "renorm_clipping", "renorm_momentum", "rms_scaling", "sparse", "ragged", "optional",
)  # fmt: skip


def _known(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A layer's configuration without what this package does not have, which must be unset."""
    for key in _IGNORED:
        value = config.pop(key, None)
        if value and key != "renorm_momentum":
            raise WeightsError(
                f"layer {config.get('name')!r} ({name}) has {key}={value!r}, which is not available here"
            )
    for key, value in config.items():
        if isinstance(value, list):
            config[key] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        elif isinstance(value, dict) and key == "activation":
            config[key] = value.get("config", value.get("class_name"))
    return config


def model_from_config(
    described: dict[str, Any], custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> tuple[Model, dict[str, Layer]]:
    """The model of a dict, and its layers by their place in a Keras file."""
    reader = Reader(custom_objects)
    model = reader.model(described)
    compiled = described.get("compile_config") or {}
    if compile and compiled.get("optimizer"):
        model.compile(
            optimizers.get(compiled["optimizer"]), _losses(compiled.get("loss")),
            [m for m in _names(compiled.get("metrics")) if isinstance(m, (str, list))],
            loss_weights=compiled.get("loss_weights"),
        )  # fmt: skip
    return model, reader.places


def _names(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return []
    return list(value or [])


def _losses(value: Any) -> Any:
    if isinstance(value, dict) and "class_name" not in value:
        return {k: _losses(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_losses(v) for v in value]
    return losses.get(value) if isinstance(value, dict) else value
