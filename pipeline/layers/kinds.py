"""The table of simple layers, which a network and the branch of a residual block may contain."""

from pixelmill.pipeline.layers.activation import Activation, Softmax
from pixelmill.pipeline.layers.convolution import (
    Convolution,
    DepthwiseConvolution,
    FixedConvolution,
    SeparableConvolution,
)
from pixelmill.pipeline.layers.dense import Dense, Flatten
from pixelmill.pipeline.layers.normalization import BatchNormalization
from pixelmill.pipeline.layers.pooling import GlobalPooling, Pooling
from pixelmill.pipeline.layers.regularization import Dropout

SimpleLayer = (
    Convolution
    | DepthwiseConvolution
    | SeparableConvolution
    | FixedConvolution
    | BatchNormalization
    | Activation
    | Pooling
    | GlobalPooling
    | Dropout
    | Flatten
    | Dense
    | Softmax
)
