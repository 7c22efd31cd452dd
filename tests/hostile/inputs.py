"""Hostile inputs of every entrance: written by hand where one knows what is bad, and random changes of valid files."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

from hostile.read_files import born, cards, checkpoints, datasets, imports, structures
from hostile.runner import Case
from hostile.words import command_lines, environments
from hostile.written_files import archives, manifests, recipes, specs, spools

Maker = Callable[[Path, Random], Iterator[Case]]
# How many inputs of each entrance a campaign has, of 100.
SHARES: dict[Maker, int] = {
    structures: 13,
    born: 7,
    specs: 9,
    recipes: 8,
    manifests: 8,
    spools: 9,
    archives: 10,
    cards: 6,
    checkpoints: 8,
    datasets: 7,
    imports: 7,
    command_lines: 11,
    environments: 4,
}


def campaign(seeds: Path, count: int, seed: int) -> Iterator[Case]:
    """About `count` inputs, the same for the same seed.

    A short campaign takes some of those written by hand, chosen at random, so that several seeds try them all.
    """
    total = sum(SHARES.values())
    for number, (maker, share) in enumerate(SHARES.items()):
        random = Random(seed * 1000 + number)
        wanted = max(1, round(count * share / total))
        if count >= 1000:
            yield from islice(maker(seeds, random), wanted)
        else:
            pool = list(islice(maker(seeds, random), 3 * wanted + 60))
            yield from random.sample(pool, wanted)
