"""Maps and flows whose fixed points, cycles and exponents are known: to check a method, and to compare a network with.

Henon 1976; May 1976 (logistic map); Lorenz 1963 (sigma 10, rho 28, beta 8/3), integrated by Runge and Kutta's fourth
order. Each is a `System`, so it can be given wherever a network's layer can.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from strobe.probes.fixed_points.system import System, from_function


def henon(a: float = 1.4, b: float = 0.3) -> System:
    """(x, y) -> (1 - a x^2 + y, b x). det J = -b everywhere, so the exponents sum to ln b."""

    def step(z: Tensor) -> Tensor:
        x, y = z.unbind(-1)
        return torch.stack([1 - a * x * x + y, b * x], -1)

    def jacobian(z: Tensor) -> Tensor:
        J = z.new_zeros(len(z), 2, 2)
        J[:, 0, 0], J[:, 0, 1], J[:, 1, 0] = -2 * a * z[:, 0], 1, b
        return J

    return from_function(step, 2, jacobian=jacobian, name=f"Henon map, a {a:g}, b {b:g}")


def logistic(r: float | int = 4.0) -> System:
    """The map x -> r x (1 - x). At r = 4 the exponent is ln 2 and there are 2^n points with F^n(x) = x."""

    def jacobian(x: Tensor) -> Tensor:
        return (r * (1 - 2 * x))[:, :, None]

    return from_function(lambda x: r * x * (1 - x), 1, jacobian=jacobian, name=f"logistic map, r {r:g}")


def lorenz63(dt: float = 0.01) -> System:
    """One step of `dt` time units of the Lorenz flow. Its exponents sum to -(sigma + 1 + beta) = -41/3."""
    sigma, rho, beta = 10.0, 28.0, 8 / 3

    def velocity(z: Tensor) -> Tensor:
        x, y, w = z.unbind(-1)
        return torch.stack([sigma * (y - x), x * (rho - w) - y, x * y - beta * w], -1)

    def slope(z: Tensor) -> Tensor:
        J = z.new_zeros(len(z), 3, 3)
        J[:, 0, 0], J[:, 0, 1] = -sigma, sigma
        J[:, 1, 0], J[:, 1, 1], J[:, 1, 2] = rho - z[:, 2], -1, -z[:, 0]
        J[:, 2, 0], J[:, 2, 1], J[:, 2, 2] = z[:, 1], z[:, 0], -beta
        return J

    return _flow(velocity, slope, 3, dt, f"Lorenz-63, steps of {dt:g}")


def orbit(
    system: System, start: Float64[Tensor, "n size"], steps: int, transient: int = 0
) -> Float64[np.ndarray, "n steps size"]:
    """`steps` carries of each orbit from `start`, after `transient` steps that are thrown away."""
    z, out = start, []
    with torch.no_grad():
        for t in range(transient + steps):
            z = system.step(z)
            if t >= transient:
                out.append(z)
    return torch.stack(out, 1).numpy()


def _flow(
    velocity: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], size: int, dt: float, name: str
) -> System:
    """The map of one Runge-Kutta step, with its exact derivative by the chain rule through the four stages."""

    def stages(z: Tensor) -> list[tuple[Tensor, Tensor, float]]:
        k1 = velocity(z)
        at2 = z + dt / 2 * k1
        k2 = velocity(at2)
        at3 = z + dt / 2 * k2
        k3 = velocity(at3)
        at4 = z + dt * k3
        return [(z, k1, 1.0), (at2, k2, 2.0), (at3, k3, 2.0), (at4, velocity(at4), 1.0)]

    def step(z: Tensor) -> Tensor:
        return z + dt / 6 * sum(weight * k for _, k, weight in stages(z))

    def jacobian(z: Tensor) -> Tensor:
        eye = torch.eye(size, dtype=z.dtype)
        total, before = torch.zeros(len(z), size, size, dtype=z.dtype), None
        for (at, _, weight), part in zip(stages(z), (0.0, dt / 2, dt / 2, dt), strict=True):
            inner = eye if before is None else eye + part * before
            before = slope(at) @ inner
            total = total + weight * before
        return eye + dt / 6 * total

    return from_function(step, size, jacobian=jacobian, name=name)
