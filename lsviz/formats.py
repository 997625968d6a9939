"""Floating-point formats from first principles: limits, rounding, and the regions of an exponent.

A format follows from three numbers (exponent bits, mantissa bits, whether it has infinities), so
every limit here is computed, not looked up; the tests hold them against ``torch.finfo`` and
``ml_dtypes``. Pure Python and numpy: the dashboard uses it without torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from lsviz.errors import UserError


class Region(StrEnum):
    """Where a magnitude lies in a format's range, by its exponent alone."""

    FLUSHED = "flushed"
    SUBNORMAL = "subnormal"
    NORMAL = "normal"
    OVERFLOW = "overflow"


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """A binary floating-point format of one sign bit, ``exponent_bits`` and ``mantissa_bits``.

    Attributes:
        name: Short lower-case name, e.g. ``fp16``.
        exponent_bits: Width of the exponent field.
        mantissa_bits: Width of the stored mantissa (the leading one is implied).
        finite_only: True for E4M3 (OCP OFP8, section 5.1): the top exponent holds numbers, only the
            all-ones code is NaN, and there is no Inf.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    finite_only: bool = False

    @property
    def bias(self) -> int:
        """Exponent bias, 2^(exponent_bits - 1) - 1."""
        return int(2 ** (self.exponent_bits - 1) - 1)

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite value (15 for FP16)."""
        return self.bias + 1 if self.finite_only else self.bias

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal value (-14 for FP16)."""
        return 1 - self.bias

    @property
    def min_subnormal_exponent(self) -> int:
        """Exponent of the smallest subnormal value (-24 for FP16)."""
        return self.min_exponent - self.mantissa_bits

    @property
    def epsilon(self) -> float:
        """Distance from 1 to the next larger value."""
        return float(2.0**-self.mantissa_bits)

    @property
    def max(self) -> float:
        """Largest finite value (65,504 for FP16, 448 for E4M3)."""
        lost = 2 if self.finite_only else 1  # E4M3's all-ones significand is NaN
        return float((2 - lost * self.epsilon) * 2.0**self.max_exponent)

    @property
    def min_normal(self) -> float:
        """Smallest normal value (2^-14 for FP16)."""
        return float(2.0**self.min_exponent)

    @property
    def min_subnormal(self) -> float:
        """Smallest value above zero (2^-24 for FP16)."""
        return float(2.0**self.min_subnormal_exponent)

    @property
    def flush_limit(self) -> float:
        """Largest magnitude that rounds to zero: half the smallest subnormal, itself included.

        The tie goes to the even neighbour, which is zero (IEEE 754-2019, section 4.3.1).
        """
        return self.min_subnormal / 2

    @property
    def overflow_limit(self) -> float:
        """Half a unit in the last place past ``max``: the point from which rounding leaves the format.

        65,520 for FP16. Whether the point itself still rounds down to ``max`` depends on the last bit
        of ``max``; see `overflows_at_limit`.
        """
        return self.max + float(2.0 ** (self.max_exponent - self.mantissa_bits - 1))

    @property
    def overflows_at_limit(self) -> bool:
        """Whether a value equal to ``overflow_limit`` overflows.

        True where ``max`` has an odd last bit (all IEEE formats), so that the tie goes up; False for
        E4M3, whose ``max`` is even: 464 still rounds to 448.
        """
        return not self.finite_only

    def overflows(self, magnitude: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Tell which magnitudes, of any shape, round out of the format."""
        x = np.asarray(magnitude, dtype=np.float64)
        return x >= self.overflow_limit if self.overflows_at_limit else x > self.overflow_limit

    def region_of(self, exponent: int) -> Region:
        """Tell where values of the given exponent, floor(log2 |x|), lie in this format.

        The bin just under the smallest subnormal (-25 for FP16) is called flushed, though all of it
        but the exact power of two rounds up to the smallest subnormal.
        """
        if exponent < self.min_subnormal_exponent:
            return Region.FLUSHED
        if exponent < self.min_exponent:
            return Region.SUBNORMAL
        if exponent <= self.max_exponent:
            return Region.NORMAL
        return Region.OVERFLOW

    def round(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Round to this format, nearest with ties to even; overflow gives Inf (NaN if finite-only).

        Args:
            values: Any shape, taken as float64. Exact for values that float64 holds exactly.

        Returns:
            Float64 array of the same shape holding values of this format.
        """
        with np.errstate(invalid="ignore"):  # widening a signalling NaN
            x = np.asarray(values, dtype=np.float64)
        magnitude = np.abs(x)
        finite = np.isfinite(x)
        # frexp's exponent is floor(log2|x|) + 1; below the normals the spacing stays constant.
        exponent = np.frexp(np.where(finite, magnitude, 0.0))[1] - 1
        step = np.exp2(np.maximum(exponent, self.min_exponent) - self.mantissa_bits)
        rounded = np.where(finite, np.rint(np.where(finite, x, 0.0) / step) * step, x)
        over = self.overflows(magnitude)
        beyond = np.full_like(x, np.nan) if self.finite_only else np.copysign(np.inf, x)
        result = np.where(over & ~np.isnan(x), beyond, rounded)
        return np.asarray(result, dtype=np.float64)


FP16: Final = FloatFormat("fp16", exponent_bits=5, mantissa_bits=10)
BF16: Final = FloatFormat("bf16", exponent_bits=8, mantissa_bits=7)
FP32: Final = FloatFormat("fp32", exponent_bits=8, mantissa_bits=23)
E4M3: Final = FloatFormat("e4m3", exponent_bits=4, mantissa_bits=3, finite_only=True)
E5M2: Final = FloatFormat("e5m2", exponent_bits=5, mantissa_bits=2)

FORMATS: Final[dict[str, FloatFormat]] = {f.name: f for f in (FP16, BF16, FP32, E4M3, E5M2)}
"""Every known format by name."""


def parse_format(name: str) -> FloatFormat:
    """Return the format of that name (case does not matter).

    Raises:
        UserError: The name is unknown; the message lists the known ones.
    """
    try:
        return FORMATS[name.strip().lower()]
    except KeyError:
        raise UserError(f"unknown format {name!r}; choose one of: {', '.join(FORMATS)}") from None
