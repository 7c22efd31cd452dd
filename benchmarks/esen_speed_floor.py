"""The arithmetic that no implementation of eSEN avoids: its matrix products, counted and timed alone.

Needs torch only: the processes of the reference import it too.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

# Rows of one product on a CPU. Measured on two cores with AVX-512: 256 and 512 take longer, and from 1024 up to all
# edges at once it makes no difference beyond the noise; so few that the buffers do not show in a process's memory.
CPU_ROWS = 2048
GPU_ROWS = 65536  # fills the machine, and does not fill its memory


@dataclass(frozen=True)
class Sizes:
    """What the shapes of an eSEN depend on (complex SO(2) weights, gates, spectral node block)."""

    num_layers: int
    lmax: int
    mmax: int
    sphere_channels: int
    hidden_channels: int
    edge_channels: int
    num_distance_basis: int


@dataclass(frozen=True)
class Product:
    """One linear map of the network: (rows, inputs) -> (rows, outputs), `times` times in one evaluation.

    `per` says how many rows there are: `copies` for every edge or atom.
    """

    name: str
    per: Literal["edge", "atom"]
    inputs: int
    outputs: int
    times: int
    copies: int = 1

    def rows(self, atoms: int, edges: int) -> int:
        """Rows of the product for a structure."""
        return self.copies * (edges if self.per == "edge" else atoms)

    def flops(self, atoms: int, edges: int) -> int:
        """Of all its times, forward; a multiplication and an addition count as two."""
        return 2 * self.rows(atoms, edges) * self.inputs * self.outputs * self.times


def products(sizes: Sizes) -> list[Product]:
    """The products that are left when everything that can be tabulated or summed first is.

    Left out, against the network as written: the species' share of the first radial layer (a table of the elements),
    the last layer of the edge-degree embedding (linear, so it acts on sums over neighbours), and the rotations (35 of
    81 entries an edge are not zero at lmax 2; 2 % of the arithmetic).
    """
    s = sizes
    layers, degrees = s.num_layers, s.lmax + 1
    found = [
        Product("radial basis", "edge", s.num_distance_basis, s.edge_channels, layers + 1),
        Product("radial hidden", "edge", s.edge_channels, s.edge_channels, layers + 1),
        Product("radial modulation", "edge", s.edge_channels, _modulated(s), layers),
    ]
    gates = s.lmax * s.hidden_channels
    for name, inputs, outputs, extra in (
        ("conv 1", 2 * s.sphere_channels, s.hidden_channels, gates),
        ("conv 2", s.hidden_channels, s.sphere_channels, 0),
    ):
        found.append(Product(f"{name} m=0", "edge", degrees * inputs, degrees * outputs + extra, layers))
        for m in range(1, s.mmax + 1):
            both = 2 * (degrees - m)  # +m and -m, mixed by one real matrix
            found.append(Product(f"{name} m={m}", "edge", both * inputs, both * outputs, layers))
    coefficients = degrees**2
    found += [
        Product("node gates", "atom", s.sphere_channels, gates, layers),
        Product("node linear 1", "atom", s.sphere_channels, s.hidden_channels, layers, coefficients),
        Product("node linear 2", "atom", s.hidden_channels, s.sphere_channels, layers, coefficients),
        Product("energy 1", "atom", s.sphere_channels, s.hidden_channels, 1),
        Product("energy 2", "atom", s.hidden_channels, s.hidden_channels, 1),
    ]
    return found


def _modulated(sizes: Sizes) -> int:
    return sum(sizes.lmax + 1 - m for m in range(sizes.mmax + 1)) * 2 * sizes.sphere_channels


def floor_flops(sizes: Sizes, atoms: int, edges: int) -> int:
    """Of energy, forces and stress: every product once forward and once for the gradient of its input.

    Weights are constants at inference, so that their gradients are not part of it.
    """
    return 2 * sum(product.flops(atoms, edges) for product in products(sizes))


def formula_flops(sizes: Sizes, atoms: int, edges: int) -> int:
    """Of energy, forces and stress of the network as written, with nothing tabulated and dense rotations."""
    s = sizes
    degrees, coefficients = s.lmax + 1, (s.lmax + 1) ** 2
    reduced = sum(2 * min(degree, s.mmax) + 1 for degree in range(degrees))
    rotations = reduced * coefficients * (2 * s.sphere_channels + s.sphere_channels)
    species = 2 * s.edge_channels * s.edge_channels
    last = s.edge_channels * degrees * s.sphere_channels
    rotated_back = reduced * coefficients * s.sphere_channels
    per_edge = s.num_layers * (rotations + species) + species + last + rotated_back
    return floor_flops(sizes, atoms, edges) + 4 * edges * per_edge


def floor_call(sizes: Sizes, atoms: int, edges: int, dtype: torch.dtype, device: str = "cpu") -> Callable[[], None]:
    """What, called, runs exactly the products of one evaluation: forward, then the gradient of every input.

    All products share three buffers, and all times of a product one weight: less memory traffic than any network has,
    as befits a floor.
    """
    needed = products(sizes)
    largest = max(product.rows(atoms, edges) for product in needed)
    chunk = min(CPU_ROWS if device == "cpu" else GPU_ROWS, largest)
    options: dict[str, Any] = {"dtype": dtype, "device": device}
    inputs = torch.randn(max(chunk * product.inputs for product in needed), **options)
    outputs = torch.zeros(max(chunk * product.outputs for product in needed), **options)
    gradients = torch.zeros_like(inputs)
    weights = [torch.randn(product.outputs, product.inputs, **options) / product.inputs**0.5 for product in needed]

    def run() -> None:
        for product, weight in zip(needed, weights, strict=True):
            chunks = _chunks(product.rows(atoms, edges), chunk)
            for _ in range(product.times):
                for n in chunks:
                    torch.mm(_matrix(inputs, n, product.inputs), weight.t(), out=_matrix(outputs, n, product.outputs))
                for n in chunks:
                    torch.mm(_matrix(outputs, n, product.outputs), weight, out=_matrix(gradients, n, product.inputs))

    return run


def _matrix(buffer: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return buffer[: rows * columns].view(rows, columns)


def _chunks(rows: int, size: int) -> list[int]:
    return [min(size, rows - start) for start in range(0, rows, size)]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: on the clock, and of all threads together."""

    seconds: float
    cpu_seconds: float


def timed(call: Callable[[], object], device: str = "cpu") -> Timing:
    """Time one call; on a GPU until all its work is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)
