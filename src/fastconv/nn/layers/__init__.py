"""All layers, under Keras' names."""

from __future__ import annotations

from .activation import Activation, LeakyReLU, ReLU, Softmax
from .augment import RandomAffine, RandomFlip, RandomRotation, RandomTranslation, RandomZoom, Rescaling
from .conv import Conv1D, Conv2D, Conv2DTranspose, Conv3D, DepthwiseConv2D, SeparableConv2D
from .core import Input, InputLayer, Layer
from .dense import Dense
from .merge import Add, Concatenate, Multiply
from .norm import BatchNormalization, Dropout, LayerNormalization
from .pool import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from .shape import Flatten, Reshape, UpSampling2D, ZeroPadding1D, ZeroPadding2D, ZeroPadding3D

# Keras' other names of the same layers
AvgPool1D, AvgPool2D, AvgPool3D = AveragePooling1D, AveragePooling2D, AveragePooling3D
MaxPool1D, MaxPool2D, MaxPool3D = MaxPooling1D, MaxPooling2D, MaxPooling3D
GlobalAvgPool1D, GlobalAvgPool2D, GlobalAvgPool3D = (
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
)
GlobalMaxPool1D, GlobalMaxPool2D, GlobalMaxPool3D = GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D
Convolution1D, Convolution2D, Convolution3D = Conv1D, Conv2D, Conv3D

LAYERS: tuple[type[Layer], ...] = (
    Activation, Add, AveragePooling1D, AveragePooling2D, AveragePooling3D, BatchNormalization, Concatenate, Conv1D,
    Conv2D, Conv2DTranspose, Conv3D, Dense, DepthwiseConv2D, Dropout, Flatten, GlobalAveragePooling1D,
    GlobalAveragePooling2D, GlobalAveragePooling3D, GlobalMaxPooling1D, GlobalMaxPooling2D, GlobalMaxPooling3D,
    InputLayer, LayerNormalization, LeakyReLU, MaxPooling1D, MaxPooling2D, MaxPooling3D, Multiply, RandomAffine,
    RandomFlip, RandomRotation, RandomTranslation, RandomZoom, ReLU, Rescaling, Reshape, SeparableConv2D, Softmax,
    UpSampling2D, ZeroPadding1D, ZeroPadding2D, ZeroPadding3D,
)  # fmt: skip

__all__ = [
    "LAYERS", "Activation", "Add", "AveragePooling1D", "AveragePooling2D", "AveragePooling3D", "AvgPool1D",
    "AvgPool2D", "AvgPool3D", "BatchNormalization", "Concatenate", "Conv1D", "Conv2D", "Conv2DTranspose", "Conv3D",
    "Convolution1D", "Convolution2D", "Convolution3D", "Dense", "DepthwiseConv2D", "Dropout", "Flatten",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalAveragePooling3D", "GlobalAvgPool1D",
    "GlobalAvgPool2D", "GlobalAvgPool3D", "GlobalMaxPool1D", "GlobalMaxPool2D", "GlobalMaxPool3D",
    "GlobalMaxPooling1D", "GlobalMaxPooling2D", "GlobalMaxPooling3D", "Input", "InputLayer", "Layer",
    "LayerNormalization", "LeakyReLU", "MaxPool1D", "MaxPool2D", "MaxPool3D", "MaxPooling1D", "MaxPooling2D",
    "MaxPooling3D", "Multiply", "RandomAffine", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom",
    "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "UpSampling2D", "ZeroPadding1D", "ZeroPadding2D",
    "ZeroPadding3D",
]  # fmt: skip
