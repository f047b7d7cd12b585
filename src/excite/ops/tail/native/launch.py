"""The passes of the fused tail, and the numbers between them, in C (`passes.h`, `numbers.h`): one call each."""

import ctypes
import math
from typing import Any

import torch

from excite.ops.precision import wide_type
from excite.ops.tail import torch as plain
from excite.ops.tail.kernels import Affine, AffineGrads, Carried, Kernels, NormGrads, ScaledGrads
from excite.ops.tail.moments import Moments, Normalised, NormalisedGrads, Numbers, Saved, Settings, Statistics
from excite.types import FeatureMap

# Any: ctypes has no types for the functions of a library.

CPU = torch.device("cpu")  # said everywhere: the default device may be another
NAMES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}


class NativeKernels(Kernels):
    """The kernels of a library that `native.build` made."""

    ceilings = (math.inf, 6.0)
    gated = True

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(plain)
        pointer, long, integer, double = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
        sizes = [long] * 3
        # fmt: off
        passes: dict[str, list[Any]] = {
            "normalise": [pointer] * 7 + [integer, double, double, integer] + [pointer] * 10 + sizes + [integer] * 2,
            "affine": [pointer] * 7 + [double] * 2 + sizes + [integer] * 2,
            "affine_backward": [pointer] * 7 + [double] + [pointer] * 7 + sizes + [integer] * 2,
            "tail": [
                *[pointer] * 2, long, *[pointer] * 4, integer, double, double, integer, *[pointer] * 4,
                *[double] * 2, *sizes, *[integer] * 2,
            ],
            "tail_backward": [
                *[pointer] * 4, long, *[pointer] * 2, *[integer] * 2, double, *[pointer] * 7, *sizes, *[integer] * 2,
            ],
            "normalise_backward": [pointer] * 17 + [integer] * 2 + [pointer] * 4 + sizes + [integer] * 2,
        }
        numbers: dict[str, list[Any]] = {
            "correlate": [pointer] * 3 + sizes + [integer],
            "correlate_kernel": [pointer] * 3 + sizes + [integer],
        }
        # fmt: on
        self.calls: dict[tuple[str, torch.dtype], Any] = {}
        for dtype, name in NAMES.items():
            for kind, arguments in {**passes, **(numbers if name != "bfloat16" else {})}.items():
                call = getattr(library, f"{kind}_{name}")
                call.argtypes = arguments
                call.restype = integer if kind in passes else None
                self.calls[kind, dtype] = call

    def _pass(self, kind: str, z: FeatureMap, *arguments: Any) -> None:
        # The tensors live as long as this frame, which is what the addresses need.
        self._run(kind, z, *[x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments])

    def _run(self, kind: str, z: FeatureMap, *arguments: Any) -> None:
        n, c = z.shape[:2]
        positions = z.numel() // (n * c)
        # Maps of one position are the same either way; channels last is the longer loop.
        last = positions == 1 or not z.is_contiguous()
        if self.calls[kind, z.dtype](*arguments, n, c, positions, last, torch.get_num_threads()):
            raise MemoryError(f"no memory for the sums of a map of shape {tuple(z.shape)}")

    def standardise(
        self, z: FeatureMap, basis: Numbers, gamma: Numbers, beta: Numbers, settings: Settings
    ) -> Statistics:
        """Return the moments of z, and the description of the normalised map that follows, in one call."""
        shape, wide = z.shape[:2], wide_type(z)

        def room(wanted: bool) -> Numbers:
            return torch.empty(shape, dtype=wide, device=CPU) if wanted else None

        batch, first, second, projects = settings.batch, settings.first, settings.second, basis is not None
        moments = Moments(room(batch or first), room(batch or second), room(projects))
        described = room(first and not projects), room(second and not projects), room(projects)
        mu, inverse, scale, bias = (torch.empty(shape[1], dtype=torch.float64, device=CPU) for _ in range(4))
        doubles, parameters = alike_parameters((gamma, beta, *(settings.running or (None, None))))
        norm = *parameters, doubles, settings.momentum, settings.eps, batch
        self._pass("normalise", z, z, basis, totals(basis), *norm, *moments, mu, inverse, scale, bias, *described)
        if batch and settings.momentum and settings.running is not None:
            for own, moved in zip(settings.running, parameters[2:], strict=True):
                if moved is not own and moved is not None:
                    own.copy_(moved)
        return Statistics(moments, inverse, Normalised(scale, bias, mu, *described))

    def scaled(self, z: FeatureMap, by: Affine, shortcut: FeatureMap | None, ceiling: float | None) -> FeatureMap:
        """Return `by(z) + shortcut`, rectified up to `ceiling`, in one call."""
        out, r = torch.empty_like(z), None if shortcut is None else alike(shortcut, z)
        lowest = math.nan if ceiling is None else 0.0
        self._pass("affine", z, z, *dense_numbers(by, z), r, out, lowest, bound(ceiling))
        return out

    def inferred(self, z: FeatureMap, norm: Any, means: bool) -> tuple[Numbers, torch.Tensor] | None:
        """Return the mean `[n c]` of the map that running statistics normalise, and the numbers for `attended`.

        One call with few numbers around it: on the maps of one image they cost more than the passes. means: whether
        the mean is wanted. None where the norm's numbers are not float32.
        """
        parameters = norm.weight, norm.bias, norm.running_mean, norm.running_var
        for x in parameters:
            if x is not None and (x.dtype is not torch.float32 or not x.is_contiguous()):
                return None
        n, c = z.shape[:2]
        rooms = torch.empty((2, n, c), dtype=wide_type(z), device=CPU) if means else None
        first, second = (None, None) if rooms is None else (rooms.data_ptr(), rooms[1].data_ptr())
        numbers = torch.empty((4, c), dtype=torch.float64, device=CPU)
        mu, inverse, scale, bias = range(numbers.data_ptr(), numbers.data_ptr() + 32 * c, 8 * c)
        places = [None if x is None else x.data_ptr() for x in parameters]
        norm_of = *places, False, 0.0, norm.eps, False
        made = first, None, None, mu, inverse, scale, bias, second, None, None
        self._run("normalise", z, z.data_ptr(), None, None, *norm_of, *made)
        return None if rooms is None else rooms[1], numbers

    def attended(
        self,
        z: FeatureMap,
        numbers: torch.Tensor,
        weights: Numbers,
        shortcut: FeatureMap | None,
        ceiling: float | None,
    ) -> FeatureMap:
        """Return the normalised map by its weights `[n c]`, plus shortcut, rectified up to `ceiling`."""
        out, r = torch.empty_like(z), None if shortcut is None else alike(shortcut, z)
        mu, _, scale, bias = range(numbers.data_ptr(), numbers.data_ptr() + 32 * z.shape[1], 8 * z.shape[1])
        w, lowest = None if weights is None else dense(weights, wide_type(z)), math.nan if ceiling is None else 0.0
        places = [None if x is None else x.data_ptr() for x in (w, r, out)]
        self._run("affine", z, z.data_ptr(), scale, bias, mu, *places, lowest, bound(ceiling))
        return out

    def grad_scaled(
        self, grad: FeatureMap, out: FeatureMap | None, z: FeatureMap, by: Affine, ceiling: float | None
    ) -> ScaledGrads:
        """Return the gradients of `scaled` in one call; out: its output, or None where there was no rectifier."""
        shape, wide, w = z.shape[:2], wide_type(z), by.weights
        grad = alike(grad, z)
        g = None if out is None else torch.empty_like(z)
        sums, a = torch.empty((2, *shape), dtype=wide, device=CPU), torch.empty(shape, dtype=wide, device=CPU)
        weights = None if w is None else torch.empty(shape, dtype=wide, device=CPU)
        scale, bias, mu = (torch.empty(shape[1], dtype=torch.float64, device=CPU) for _ in range(3))
        inputs = grad, out, z, *dense_numbers(by, z), bound(ceiling)
        self._pass("affine_backward", z, *inputs, g, sums, a, scale, bias, mu, weights)
        if weights is not None and w is not None:
            weights = dense(weights, w.dtype)
        return ScaledGrads(grad if g is None else g, a, AffineGrads(scale, bias, mu, weights))

    def grad_standardise(
        self, saved: Saved, carried: Carried | None, grads: NormalisedGrads, settings: Settings
    ) -> NormGrads:
        """Return the gradients of z, gamma and beta in one call; carried: a part of z's that is known already."""
        z, gamma, beta = saved.z, saved.gamma, saved.beta
        shape, wide = z.shape[:2], wide_type(z)
        g, a = carried or (z, torch.zeros(shape, dtype=wide, device=CPU))
        per_channel = [None if x is None else dense(x, torch.float64) for x in grads[:3]]
        per_sample = [None if x is None else dense(x, wide) for x in grads[3:]]
        doubles = not all(x is None or x.dtype == torch.float32 for x in (gamma, beta))
        kind = torch.float64 if doubles else torch.float32
        for_gamma, for_beta = (torch.empty(shape[1], dtype=kind, device=CPU) for _ in range(2))
        basis = saved.basis if grads.projection is not None else None
        room = torch.empty((2 if basis is None else 3, *shape), dtype=wide, device=CPU)
        dz = torch.empty_like(z)
        moments, norm = (saved.mean, saved.variance, saved.projection), (saved.scale, saved.mu, saved.inverse)
        self._pass(
            *("normalise_backward", z, alike(g, z), z, dense(a, wide), basis, totals(basis), *moments, *norm),
            *(*per_channel, *per_sample, settings.batch, doubles, for_gamma, for_beta, room, dz),
        )
        return NormGrads(
            dz,
            None if gamma is None else dense(for_gamma, gamma.dtype),
            None if beta is None else dense(for_beta, beta.dtype),
        )

    def described(
        self, z: FeatureMap, gamma: Numbers, beta: Numbers, settings: Settings
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return moments `[k n c]` and numbers `[4 c]` of the norm (as `attended` takes them); one call.

        Moments: mean of z, mean of the normalised map; with the batch's statistics or second moments the variance of z,
        then that of the normalised map. The norm's tensors have one type (`alike_parameters`).
        """
        n, c = z.shape[:2]
        spread = settings.batch or settings.second
        room = torch.empty((2 + spread + settings.second, n, c), dtype=wide_type(z), device=CPU)
        norm = torch.empty((4, c), dtype=torch.float64, device=CPU)
        step, start, channels, first = n * c * room.element_size(), room.data_ptr(), 8 * c, norm.data_ptr()
        numbers = gamma, beta, *(settings.running or (None, None))
        doubles = any(x is not None and x.dtype is torch.float64 for x in numbers)
        places = [None if x is None else x.data_ptr() for x in numbers]
        norm_of = *places, doubles, settings.momentum, settings.eps, settings.batch
        variance, second = start + 2 * step if spread else None, start + 3 * step if settings.second else None
        made = start, variance, None, *range(first, first + 4 * channels, channels), start + step, second, None
        self._run("normalise", z, z.data_ptr(), None, None, *norm_of, *made)
        return room, norm

    def grad_attended(
        self,
        grad: FeatureMap,
        out: FeatureMap | None,
        z: FeatureMap,
        numbers: torch.Tensor,
        weights: torch.Tensor,
        ceiling: float | None,
    ) -> tuple[FeatureMap, torch.Tensor, torch.Tensor]:
        """Return the gradient behind the rectifier, numbers `[4 n c]` and those `[3 c]` of the norm; one call.

        The numbers: two sums, the factor a of z's gradient `a g`, and the gradient of the weights.
        """
        n, c = z.shape[:2]
        grad = alike(grad, z)
        g = None if out is None else torch.empty_like(z)
        work, by_norm = (
            torch.empty((4, n, c), dtype=wide_type(z), device=CPU),
            torch.empty((3, c), dtype=torch.float64, device=CPU),
        )
        w = dense(weights, work.dtype)
        mu, _, scale, bias = range(numbers.data_ptr(), numbers.data_ptr() + 32 * c, 8 * c)
        start, step, first = work.data_ptr(), n * c * work.element_size(), by_norm.data_ptr()
        inputs = grad.data_ptr(), None if out is None else out.data_ptr(), z.data_ptr(), scale, bias, mu, w.data_ptr()
        made = None if g is None else g.data_ptr(), start, start + 2 * step, first, first + 8 * c, first + 16 * c
        self._run("affine_backward", z, *inputs, bound(ceiling), *made, start + 3 * step)
        return grad if g is None else g, work, by_norm

    def grad_described(
        self,
        g: FeatureMap,
        z: FeatureMap,
        work: torch.Tensor,
        by_norm: torch.Tensor,
        room: torch.Tensor,
        norm: torch.Tensor,
        grads: tuple[torch.Tensor, Numbers],
        settings: Settings,
        doubles: bool,
    ) -> tuple[FeatureMap, torch.Tensor, torch.Tensor]:
        """Return the gradients of z, gamma and beta; one call.

        g, work, by_norm: of `grad_attended`, which is over with its sums; grads: of what `described` gave of the
        normalised map; doubles: whether gamma's and beta's are float64.
        """
        n, c = z.shape[:2]
        dz = torch.empty_like(z)
        for_norm = torch.empty((2, c), dtype=torch.float64 if doubles else torch.float32, device=CPU)
        by_first, by_second = (None if x is None else dense(x, room.dtype) for x in grads)
        start, step, moments, first = work.data_ptr(), n * c * work.element_size(), room.data_ptr(), by_norm.data_ptr()
        mu, inverse, scale, _ = range(norm.data_ptr(), norm.data_ptr() + 32 * c, 8 * c)
        variance = moments + 2 * step if settings.second else None
        inputs = g.data_ptr(), z.data_ptr(), start + 2 * step, None, None, moments, variance, None, scale, mu, inverse
        by = first, first + 8 * c, first + 16 * c, *(None if x is None else x.data_ptr() for x in (by_first, by_second))
        made = for_norm.data_ptr(), for_norm[1].data_ptr(), start, dz.data_ptr()
        self._run("normalise_backward", z, *inputs, *by, None, settings.batch, doubles, *made)
        return dz, for_norm[0], for_norm[1]

    def tail(
        self,
        z: FeatureMap,
        kernel: torch.Tensor,
        gamma: Numbers,
        beta: Numbers,
        shortcut: FeatureMap | None,
        settings: Settings,
        ceiling: float | None,
    ) -> tuple[FeatureMap, torch.Tensor, torch.Tensor]:
        """Return the tail with ECA's gate, whose weights are `kernel`, and what its backward pass needs; one call.

        The norm's tensors have one type (`alike_parameters`), the kernel that in which z is worked on.
        """
        n, c = z.shape[:2]
        room = torch.empty((4 if settings.batch else 3, n, c), dtype=kernel.dtype, device=CPU)
        norm, out = torch.empty((4, c), dtype=torch.float64, device=CPU), torch.empty_like(z)
        numbers = gamma, beta, *(settings.running or (None, None))
        doubles = any(x is not None and x.dtype is torch.float64 for x in numbers)
        r, lowest = None if shortcut is None else alike(shortcut, z), math.nan if ceiling is None else 0.0
        self._pass(
            *("tail", z, z, kernel, kernel.numel(), *numbers, doubles, settings.momentum, settings.eps, settings.batch),
            *(room, norm, r, out, lowest, bound(ceiling)),
        )
        return out, room, norm

    def grad_tail(
        self,
        grad: FeatureMap,
        out: FeatureMap | None,
        z: FeatureMap,
        kernel: torch.Tensor,
        room: torch.Tensor,
        norm: torch.Tensor,
        settings: Settings,
        ceiling: float | None,
        doubles: bool,
    ) -> tuple[FeatureMap, FeatureMap, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the gradient behind the rectifier, and those of z, the kernel `[k]`, gamma and beta; one call.

        out: the output, None where there was no rectifier; doubles: whether gamma's and beta's gradients are float64.
        """
        n, c = z.shape[:2]
        size, grad = kernel.numel(), alike(grad, z)
        g, dz = None if out is None else torch.empty_like(z), torch.empty_like(z)
        work = torch.empty(7 * n * c + size, dtype=kernel.dtype, device=CPU)
        by_norm = torch.empty(3 * c + size, dtype=torch.float64, device=CPU)
        for_norm = torch.empty((2, c), dtype=torch.float64 if doubles else torch.float32, device=CPU)
        for_kernel, for_gamma, for_beta = by_norm[3 * c :], for_norm[0], for_norm[1]
        self._pass(
            *("tail_backward", z, grad, out, z, kernel, size, room, norm, settings.batch, doubles, bound(ceiling)),
            *(g, work, by_norm, for_kernel, for_gamma, for_beta, dz),
        )
        return grad if g is None else g, dz, for_kernel.to(kernel.dtype), for_gamma, for_beta

    def correlate(self, s: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """Return the correlation of every row of `s` `[n c]` with a kernel `[k]`, zeros beyond the ends."""
        s, kernel, out = s.contiguous(), kernel.contiguous(), torch.empty(s.shape, dtype=s.dtype, device=CPU)
        call, sizes = self.calls["correlate", s.dtype], (*s.shape, kernel.numel(), torch.get_num_threads())
        call(s.data_ptr(), kernel.data_ptr(), out.data_ptr(), *sizes)
        return out

    def correlate_kernel(self, s: torch.Tensor, grad: torch.Tensor, size: int) -> torch.Tensor:
        """Return the kernel's gradient `[size]`."""
        s, grad = s.contiguous(), grad.contiguous()
        found = s.new_empty(size, dtype=torch.float64)
        call, sizes = self.calls["correlate_kernel", s.dtype], (*s.shape, size, torch.get_num_threads())
        call(s.data_ptr(), grad.data_ptr(), found.data_ptr(), *sizes)
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
