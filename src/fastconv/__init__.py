"""fastconv: the fastest convolution, padding and pooling for NumPy arrays on a CPU, forward and backward."""

from __future__ import annotations

from ._version import __version__
from .backends import get_backend, list_backends, set_backend, use_backend
from .errors import BackendUnavailableError, DTypeError, FastconvError, GeometryError, UnknownNameError
from .ops.avg_pool import (
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    avg_pool3d,
    avg_pool3d_backward,
)
from .ops.conv import ConvGrads, conv1d, conv1d_backward, conv2d, conv2d_backward, conv3d, conv3d_backward
from .ops.conv_transpose import (
    conv_transpose1d,
    conv_transpose1d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    conv_transpose3d,
    conv_transpose3d_backward,
)
from .ops.elementwise import activate, activation_backward, adam_update, rmsprop_update, sgd_update
from .ops.norm import BatchNormGrads, batch_norm, batch_norm_backward, batch_norm_train, fold_batch_norm
from .ops.pad import pad, pad_backward
from .ops.pool import (
    max_pool1d,
    max_pool1d_backward,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool2d_backward,
    max_pool2d_with_indices,
    max_pool3d,
    max_pool3d_backward,
    max_pool3d_with_indices,
)
from .threads import get_num_threads, set_num_threads

__all__ = [
    "BackendUnavailableError",
    "BatchNormGrads",
    "ConvGrads",
    "DTypeError",
    "FastconvError",
    "GeometryError",
    "UnknownNameError",
    "__version__",
    "activate",
    "activation_backward",
    "adam_update",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_train",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv3d",
    "conv3d_backward",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "fold_batch_norm",
    "get_backend",
    "get_num_threads",
    "list_backends",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool2d_with_indices",
    "max_pool3d",
    "max_pool3d_backward",
    "max_pool3d_with_indices",
    "pad",
    "pad_backward",
    "rmsprop_update",
    "set_backend",
    "set_num_threads",
    "sgd_update",
    "use_backend",
]
