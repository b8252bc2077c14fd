"""Modules: the tree, the layers, the initialisers. Arguments, layouts and names are PyTorch's."""

from pullback.nn import init
from pullback.nn.activation import *
from pullback.nn.activation import __all__ as _activations
from pullback.nn.attention import MultiheadAttention, TransformerBlock
from pullback.nn.containers import ModuleDict, ModuleList, Sequential
from pullback.nn.conv import Conv1d, Conv2d, ConvTranspose2d
from pullback.nn.linear import Bilinear, Dropout, Embedding, Flatten, Linear
from pullback.nn.module import Module, Parameter, functional_call, replaced
from pullback.nn.noise import GaussianNoise, RectifierBlend, ReducePrecision
from pullback.nn.norm import BatchNorm1d, BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm, RMSNorm
from pullback.nn.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from pullback.nn.recurrent import GRU, LSTM, RNN

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "Bilinear",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRU",
    "GaussianNoise",
    "GroupNorm",
    "InstanceNorm2d",
    "LSTM",
    "LayerNorm",
    "Linear",
    "MaxPool2d",
    "Module",
    "ModuleDict",
    "ModuleList",
    "MultiheadAttention",
    "Parameter",
    "RMSNorm",
    "RNN",
    "RectifierBlend",
    "ReducePrecision",
    "Sequential",
    "TransformerBlock",
    "functional_call",
    "init",
    "replaced",
    *_activations,
]
