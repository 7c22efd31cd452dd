"""What `esen-flows train` is given: data by path or by name, a split, and the stages of a file or a card."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esen_flows.cli.overrides import UsageError
from esen_flows.errors import InputError
from esen_flows.schemas.protocol_fields import parse_value

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.schemas.model_card import ModelCard
    from esen_flows.training.config import TrainingConfig
    from esen_flows.training.recipe import Stage


@dataclass(frozen=True)
class DataOption:
    """One --data: where it is, how often it counts, and which data of a recipe it is ("" for none in particular)."""

    path: Path
    repeats: int
    name: str


@dataclass(frozen=True)
class HeldOut:
    """What is validated on: data of their own, or a share of the training data, by material within every group."""

    path: Path | None
    fraction: float
    seed: int

    def split(self, dataset: "Dataset", folder: Path | None) -> tuple["Dataset", "Dataset"]:
        """Training and validation set; which records went where is in folder/split.json, and read from there again.

        Raises
        ------
        InputError
            the folder holds another split.
        """
        from esen_flows.data.importing import read_dataset
        from esen_flows.data.splits import read_split, split_by_material, write_split

        if self.path is not None:
            return dataset, read_dataset(self.path)
        written = None if folder is None else folder / "split.json"
        if written is not None and written.exists():
            known = read_split(written)
            if (known.fraction, known.seed) != (self.fraction, self.seed):
                raise InputError(
                    f"{written} holds out {known.fraction:g} with seed {known.seed}, asked for were {self.fraction:g} "
                    f"and {self.seed}; use a new folder, or the split of then"
                )
            return known.apply(dataset)
        split = split_by_material(dataset, self.fraction, self.seed)
        if written is not None:
            written.parent.mkdir(parents=True, exist_ok=True)
            write_split(written, split)
        return split.apply(dataset)


def sources_of(texts: Sequence[str]) -> list[DataOption]:
    """Parse PATH, PATH:REPEATS and NAME=PATH.

    Raises
    ------
    InputError
        nothing at a path.
    """
    found = []
    for text in texts:
        name, separator, rest = text.partition("=")
        name, rest = (name, rest) if separator and not Path(text).exists() else ("", text)
        path, _, number = rest.rpartition(":")
        counted = path and number.isdigit() and not Path(rest).exists()
        source = DataOption(Path(path), int(number), name) if counted else DataOption(Path(rest), 1, name)
        if not source.path.exists():
            raise InputError(
                f"--data {text}: nothing at {source.path}; give a dataset folder or a file of labelled data"
            )
        found.append(source)
    return found


def read_sources(sources: Sequence[DataOption]) -> "Dataset":
    """All of them as one dataset."""
    from esen_flows.data.dataset import mixture
    from esen_flows.data.importing import read_dataset

    parts = [(read_dataset(source.path), source.repeats) for source in sources]
    return parts[0][0] if len(parts) == 1 and parts[0][1] == 1 else mixture(parts)


def changes_of(assignments: Sequence[str]) -> dict[str, Any]:
    """`--set name=value` as a mapping; what the names mean is checked by the stage."""
    changes = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not text.strip():
            raise UsageError(f"--set {assignment!r} is not name=value; for example --set epochs=20")
        changes[name.strip()] = parse_value(text.strip())
    return changes


def stages_of(
    what: str,
    recipe: str | None,
    number: int | None,
    sources: Sequence[DataOption],
    held_out: HeldOut,
    changes: Mapping[str, Any],
    folder: Path | None,
) -> list["Stage"]:
    """The stages of a training file, or of a card's recipe, with their data.

    Raises
    ------
    UsageError
        no such recipe or stage, or data that the recipe names and nobody gave. InputError : bad files.
    """
    from esen_flows.training.recipe import Stage

    stages = []
    for name, config, chosen in asked_stages(what, recipe, number, sources, changes):
        own = folder / name if folder is not None and name else folder
        training, validation = held_out.split(read_sources(chosen), own)
        stages.append(Stage(name, config, training, validation))
    return stages


def asked_stages(
    what: str, recipe: str | None, number: int | None, sources: Sequence[DataOption], changes: Mapping[str, Any]
) -> Iterator[tuple[str, "TrainingConfig", list[DataOption]]]:
    """Name, settings and data of each stage of a training file or of a card's recipe, before data are read.

    Raises
    ------
    UsageError, InputError
        as `stages_of`.
    """
    for name, config, wanted in _configs(what, recipe, number, changes):
        yield name, config, _given(wanted, sources, what)


def _configs(
    what: str, recipe: str | None, number: int | None, changes: Mapping[str, Any]
) -> Iterator[tuple[str, "TrainingConfig", dict[str, int]]]:
    """Name, settings and wanted data (name: repeats; empty: whatever is given) of each stage."""
    from esen_flows.training.config import config_from_dict, read_config

    def changed(path: Path) -> "TrainingConfig":
        config = read_config(path)
        return config_from_dict({**config.to_dict(), **changes}, f"{path} with --set") if changes else config

    if what.endswith((".yaml", ".yml")) or "/" in what:
        if recipe is not None or number is not None:
            raise UsageError("--recipe and --stage choose from a card; a training file is one stage")
        yield "", changed(Path(what)), {}
        return
    from esen_flows.schemas.card import card_path, read_card

    card = read_card(what)
    chosen = _recipe(card, recipe)
    if number is not None and not 1 <= number <= len(chosen):
        raise UsageError(f"--stage {number}: the recipe has stages 1 to {len(chosen)}")
    for place, stage in enumerate(chosen, start=1):
        if number in (None, place):
            path = card_path(what).parent / stage.file
            yield f"{place}-{path.stem}", changed(path), {data.name: data.repeats for data in stage.data}


def _recipe(card: "ModelCard", name: str | None) -> Any:
    if not card.recipes:
        raise UsageError(f"the card {card.name!r} has no recipe; give a training file")
    if name is not None and name not in card.recipes:
        raise UsageError(f"--recipe {name}: the card {card.name!r} has {', '.join(card.recipes)}")
    return card.recipes[name or next(iter(card.recipes))]


def _given(wanted: Mapping[str, int], sources: Sequence[DataOption], what: str) -> list[DataOption]:
    """The sources of one stage: those that it names, as often as it says; without names, all."""
    if not wanted or (len(wanted) == 1 and not any(source.name for source in sources)):
        return list(sources)
    by_name = {source.name: source for source in sources}
    if missing := [name for name in wanted if name not in by_name]:
        raise UsageError(
            f"{what} trains on {', '.join(wanted)}; missing: " + " ".join(f"--data {name}=PATH" for name in missing)
        )
    return [DataOption(by_name[name].path, repeats * by_name[name].repeats, name) for name, repeats in wanted.items()]


def parent_domain(path: Path | None, share: float, seed: int) -> Any:
    """Data of a parent's domain: what is replayed, and what is held out to see what was forgotten."""
    from esen_flows.data.importing import read_dataset
    from esen_flows.data.splits import split_by_material
    from esen_flows.training.finetune import Parent

    if path is None:
        return None
    if not 0.0 <= share < 1.0:
        raise InputError(f"--replay-share must be in [0, 1), got {share}")
    dataset = read_dataset(path)
    if share == 0.0:
        return Parent(None, dataset)
    held_out, replayed = split_by_material(dataset, share, seed).apply(dataset)
    return Parent(replayed, held_out)
