"""Weights carry their encodings: what is simulated, trained later and lowered are the same values.

An encoding is a parametrization of a module's weight, and a weight may carry a chain of them: a mask, then a codebook,
then a grid. Those that a target has a type for (``type_name``) write the encoded values with the very operations that
``torch.export`` then hands to the target (``quantized_decomposed.quantize_per_channel`` and its inverse, a cast to
half), so that a target sees the encoding in the graph and never hears of the method that chose it. The others hold
values together – zeros, a few shared values – which shrink a package and not the file.
"""

from featherweight.network.encodings.affine import AffineEncoding
from featherweight.network.encodings.binary import BinaryEncoding
from featherweight.network.encodings.chain import (
    Encoding,
    carrier,
    chain_of,
    encode,
    encoding_of,
    encodings,
    holds,
    is_integer,
    weight_type,
)
from featherweight.network.encodings.codebook import CodebookEncoding
from featherweight.network.encodings.half import HalfEncoding
from featherweight.network.encodings.mask import MaskEncoding

ENCODINGS: tuple[type, ...] = (AffineEncoding, BinaryEncoding, CodebookEncoding, HalfEncoding, MaskEncoding)

__all__ = [
    "ENCODINGS",
    "AffineEncoding",
    "BinaryEncoding",
    "CodebookEncoding",
    "Encoding",
    "HalfEncoding",
    "MaskEncoding",
    "carrier",
    "chain_of",
    "encode",
    "encoding_of",
    "encodings",
    "holds",
    "is_integer",
    "weight_type",
]
