"""The passes of the fused tail, and the numbers between them, in C (`native/`): one call each."""

import ctypes
import math
from typing import Any

import torch

from excite.ops import kernels_torch
from excite.ops.kernels import Affine, Kernels, Numbers
from excite.ops.precision import wide_type
from excite.ops.standardise import Job, Moments, Standard
from excite.types import FeatureMap

CPU = torch.device("cpu")  # said everywhere: the default device may be another
NAMES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}


class NativeKernels(Kernels):
    """The kernels of a library that `native.build` made."""

    ceilings = (math.inf, 6.0)

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(kernels_torch)
        pointer, long, integer, double = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
        sizes = [long] * 3
        passes: dict[str, list[Any]] = {
            "normalise": [pointer] * 7 + [integer, double, double, integer] + [pointer] * 10 + sizes + [integer] * 2,
            "affine": [pointer] * 7 + [double] * 2 + sizes + [integer] * 2,
            "affine_backward": [pointer] * 7 + [double] + [pointer] * 7 + sizes + [integer] * 2,
            "normalise_backward": [pointer] * 17 + [integer] * 2 + [pointer] * 4 + sizes + [integer] * 2,
        }
        numbers: dict[str, list[Any]] = {
            "correlate": [pointer] * 3 + sizes + [integer],
            "correlate_kernel": [pointer] * 3 + sizes + [integer],
        }
        self.calls: dict[tuple[str, torch.dtype], Any] = {}
        for dtype, name in NAMES.items():
            for kind, arguments in {**passes, **(numbers if name != "bfloat16" else {})}.items():
                call = getattr(library, f"{kind}_{name}")
                call.argtypes = arguments
                call.restype = integer if kind in passes else None
                self.calls[kind, dtype] = call

    def _call(self, kind: str, dtype: torch.dtype, *arguments: Any) -> int:
        # The tensors live as long as this frame, which is what the addresses need.
        plain = [x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments]
        made: int = self.calls[kind, dtype](*plain, torch.get_num_threads())
        return made

    def _pass(self, kind: str, z: FeatureMap, *arguments: Any) -> None:
        n, c = z.shape[:2]
        positions = z.numel() // (n * c)
        # Maps of one position are the same either way; channels last is the longer loop.
        last = positions == 1 or not z.is_contiguous()
        if self._call(kind, z.dtype, *arguments, n, c, positions, last):
            raise MemoryError(f"no memory for the sums of a map of shape {tuple(z.shape)}")

    def standardise(
        self, z: FeatureMap, basis: Numbers, gamma: Numbers, beta: Numbers, job: Job
    ) -> tuple[Moments, Standard]:
        """Return the moments of z, and the description of the normalised map that follows, in one call."""
        shape, wide = z.shape[:2], wide_type(z)

        def room(wanted: bool) -> Numbers:
            return torch.empty(shape, dtype=wide, device=CPU) if wanted else None

        projects = basis is not None
        moments = Moments(room(job.batch or job.first), room(job.batch or job.second), room(projects))
        described = room(job.first and not projects), room(job.second and not projects), room(projects)
        mu, inverse, scale, bias = (torch.empty(shape[1], dtype=torch.float64, device=CPU) for _ in range(4))
        given = gamma, beta, *(job.running or (None, None))
        doubles, parameters = alike_parameters(given)
        norm = *parameters, doubles, job.momentum, job.eps, job.batch
        self._pass("normalise", z, z, basis, totals(basis), *norm, *moments, mu, inverse, scale, bias, *described)
        if job.batch and job.momentum and job.running is not None:
            for own, moved in zip(job.running, parameters[2:], strict=True):
                if moved is not own and moved is not None:
                    own.copy_(moved)
        return moments, Standard(scale, bias, mu, inverse, *described)

    def scaled(self, z: FeatureMap, by: Affine, shortcut: FeatureMap | None, ceiling: float | None) -> FeatureMap:
        """Return `by(z) + shortcut`, rectified up to `ceiling`, in one call."""
        out, r = torch.empty_like(z), None if shortcut is None else alike(shortcut, z)
        lowest = math.nan if ceiling is None else 0.0
        self._pass("affine", z, z, *dense_numbers(by, z), r, out, lowest, bound(ceiling))
        return out

    def grad_scaled(
        self, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, by: Affine, ceiling: float | None
    ) -> tuple[FeatureMap, torch.Tensor, list[Numbers]]:
        """Return g, a and the gradients of scale, bias, mu and w, in one call."""
        shape, wide, w = z.shape[:2], wide_type(z), by.weights
        grad = alike(grad, z)
        g = None if out is None else torch.empty_like(z)
        sums, a = torch.empty((2, *shape), dtype=wide, device=CPU), torch.empty(shape, dtype=wide, device=CPU)
        for_w = None if w is None else torch.empty(shape, dtype=wide, device=CPU)
        for_numbers = [torch.empty(shape[1], dtype=torch.float64, device=CPU) for _ in range(3)]
        given = grad, out, z, *dense_numbers(by, z), bound(ceiling)
        self._pass("affine_backward", z, *given, g, sums, a, *for_numbers, for_w)
        made = None if for_w is None or w is None else dense(for_w, w.dtype)
        return grad if g is None else g, a, [*for_numbers, made]

    def grad_standardise(
        self,
        ends: tuple[FeatureMap | None, torch.Tensor | None],
        z: FeatureMap,
        basis: Numbers,
        parameters: tuple[Numbers, Numbers],
        moments: Moments,
        made: Standard,
        grads: list[Numbers],
        job: Job,
    ) -> tuple[FeatureMap | None, Numbers, Numbers]:
        """Return the gradients of z, gamma and beta, in one call."""
        g, a = ends
        shape, wide = z.shape[:2], wide_type(z)
        if g is None or a is None:
            g, a = z, torch.zeros(shape, dtype=wide, device=CPU)
        by = [None if x is None else dense(x, torch.float64) for x in grads[:3]]
        by += [None if x is None else dense(x, wide) for x in grads[3:]]
        doubles = not all(x is None or x.dtype == torch.float32 for x in parameters)
        kind = torch.float64 if doubles else torch.float32
        of = [torch.empty(shape[1], dtype=kind, device=CPU) for _ in parameters]
        projection = basis if by[5] is not None else None
        room = torch.empty((2 if projection is None else 3, *shape), dtype=wide, device=CPU)
        dz = torch.empty_like(z)
        self._pass(
            *("normalise_backward", z, alike(g, z), z, dense(a, wide), projection, totals(projection), *moments),
            *(made.scale, made.mu, made.inverse, *by, job.batch, doubles, *of, room, dz),
        )
        for_gamma, for_beta = (None if x is None else dense(y, x.dtype) for x, y in zip(parameters, of, strict=True))
        return dz, for_gamma, for_beta

    def correlate(self, s: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Return the correlation of every row of `s` `[n c]` with a kernel `[k]`, zeros beyond the ends."""
        s, out = s.contiguous(), s.new_empty(s.shape)
        self._call("correlate", s.dtype, s, kernel.contiguous(), out, *s.shape, len(kernel))
        return out

    def correlate_kernel(self, s: torch.Tensor, grad: torch.Tensor, size: int) -> torch.Tensor:
        """Return the kernel's gradient `[size]`."""
        s, grad = s.contiguous(), grad.contiguous()
        found = s.new_empty(size, dtype=torch.float64)
        self._call("correlate_kernel", s.dtype, s, grad, found, *s.shape, size)
        return found.to(s.dtype)


def bound(ceiling: float | None) -> float:
    """Return the bound that the C kernels take: NaN is none."""
    return math.nan if ceiling is None or ceiling == math.inf else ceiling


def alike(x: FeatureMap, z: FeatureMap) -> FeatureMap:
    """Return `x` laid out and stored as `z`; a copy where it was not."""
    if x.dtype == z.dtype:
        if z.is_contiguous():
            same = x.is_contiguous()
        else:
            same = x.is_contiguous(memory_format=torch.channels_last if z.dim() == 4 else torch.channels_last_3d)
        if same:
            return x
    return torch.empty_like(z).copy_(x)


def alike_parameters(given: tuple[Numbers, ...]) -> tuple[bool, list[Numbers]]:
    """Return whether the numbers `[c]` are doubles, and the numbers without gaps in one type; copies are doubles."""
    there = [x for x in given if x is not None]
    kinds = {x.dtype for x in there}
    if (kinds <= {torch.float32} or kinds == {torch.float64}) and all(x.is_contiguous() for x in there):
        return kinds == {torch.float64}, list(given)
    return True, [None if x is None else x.detach().double().contiguous() for x in given]


def dense(x: Any, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers in this type without gaps."""
    made: torch.Tensor = x if x.dtype == dtype and x.is_contiguous() else x.to(dtype).contiguous()
    return made


def dense_numbers(by: Affine, z: FeatureMap) -> Affine:
    """Return the numbers with the weights in the type in which `z` is worked on, without gaps."""
    return by if by.weights is None else by._replace(weights=dense(by.weights, wide_type(z)))


def totals(basis: Numbers) -> Numbers:
    """Return the sum `[c]` of every channel's basis."""
    return None if basis is None else basis.sum(tuple(range(1, basis.dim())), dtype=torch.float64)
