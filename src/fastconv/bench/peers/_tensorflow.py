"""TensorFlow: a concrete function on NHWC tensors, the weight a constant of its graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .case import Case, Library, Ready, Unsupported, channels_first, channels_last, wide_weight

__all__ = ["TensorFlow"]


class TensorFlow(Library):
    """One variant."""

    def __init__(self, threads: int) -> None:
        import tensorflow

        super().__init__(threads)
        self._tf: Any = tensorflow
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)

    def prepare(self, variant: str, case: Case) -> Ready:
        if case.layer.op == "train":
            from ._tensorflow_training import training_step

            return training_step(case)
        case.only("conv", "max_pool", "avg_pool", backward=True, ranks=(2, 3))
        tf, layer = self._tf, case.layer
        x = tf.constant(channels_last(case.x))
        forward: Callable[..., Any] = self._conv(case) if layer.op == "conv" else self._pool(case)
        if layer.backward:
            return self._backward(case, forward, x)
        if layer.op == "conv":
            weight, bias = self._weights(case)
            traced = tf.function(lambda v: forward(v, weight, bias), autograph=False)
        else:
            traced = tf.function(forward, autograph=False)
        run = traced.get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
        return Ready(lambda: run(x), lambda y: [channels_first(y.numpy())])

    def _backward(self, case: Case, forward: Callable[..., Any], x: Any) -> Ready:
        tf = self._tf
        if case.layer.op != "conv" or case.layer.groups > 1:
            raise Unsupported("only gradients of plain convolutions are compared")
        weight, bias = self._weights(case)
        assert case.grad_output is not None
        grad = tf.constant(channels_last(case.grad_output))
        traced = tf.function(lambda v, w, b, g: tf.gradients(forward(v, w, b), [v, w, b], g), autograph=False)
        specs = [tf.TensorSpec(t.shape, t.dtype) for t in (x, weight, bias, grad)]
        run = traced.get_concrete_function(*specs)

        def arrays(grads: Any) -> Any:
            dx, dw, db = (g.numpy() for g in grads)
            return [channels_first(dx), dw.transpose(-1, -2, *range(dw.ndim - 2)), db]

        return Ready(lambda: run(x, weight, bias, grad), arrays)

    def _weights(self, case: Case) -> tuple[Any, Any]:
        assert case.weight is not None
        weight = wide_weight(case.weight)
        if case.layer.groups > 1:  # depthwise: (*kernel, C, 1)
            weight = weight.swapaxes(-1, -2)
        return self._tf.constant(weight), self._tf.constant(case.bias)

    def _conv(self, case: Case) -> Callable[..., Any]:
        tf, layer = self._tf, case.layer
        strides, dilations = [1, *layer.strides, 1], [1, *layer.dilations, 1]
        pads = [[0, 0], *map(list, layer.pads), [0, 0]]
        if layer.groups > 1:
            if (
                layer.rank != 2
                or not layer.groups == layer.channels == layer.out_channels
                or len(set(layer.strides)) > 1
            ):
                raise Unsupported("of grouped convolutions it has the depthwise one with equal strides")
            # its depthwise convolution with explicit padding aborts the process: "SAME" where that is the same
            same = self._is_same(case)

            def depthwise(v: Any, w: Any, b: Any) -> Any:
                v = v if same else tf.pad(v, pads)
                given = ("SAME" if same else "VALID",)
                return tf.nn.bias_add(tf.nn.depthwise_conv2d(v, w, strides, *given, dilations=list(layer.dilations)), b)

            return depthwise
        if layer.rank == 3:
            return lambda v, w, b: tf.nn.bias_add(
                tf.nn.conv3d(tf.pad(v, pads), w, strides, "VALID", dilations=dilations), b
            )
        return lambda v, w, b: tf.nn.bias_add(tf.nn.conv2d(v, w, strides, pads, dilations=dilations), b)

    @staticmethod
    def _is_same(case: Case) -> bool:
        layer = case.layer
        axes = zip(layer.size, case.out_shape[2:], layer.kernel, layer.strides, layer.dilations, strict=True)
        ends = [max(0, (out - 1) * s + d * (k - 1) + 1 - n) for n, out, k, s, d in axes]
        return layer.pads == tuple((end // 2, end - end // 2) for end in ends)

    def _pool(self, case: Case) -> Callable[[Any], Any]:
        tf, layer = self._tf, case.layer
        if layer.rank != 2:
            raise Unsupported("pooling of images only")
        pads = [[0, 0], *map(list, layer.pads), [0, 0]]
        kernel, strides = [1, *layer.kernel, 1], [1, *layer.strides, 1]
        if layer.op == "max_pool":
            return lambda v: tf.nn.max_pool2d(v, kernel, strides, pads)
        padded = any(p for pair in layer.pads for p in pair)
        return lambda v: tf.nn.avg_pool2d(tf.pad(v, pads) if padded else v, kernel, strides, "VALID")
