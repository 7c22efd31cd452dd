"""What `esen-flows train` is given: data by path or by name, a split, and the stages of a file or a card."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from esen_flows.cli.usage import UsageError
from esen_flows.errors import InputError
from esen_flows.schemas.card import card_path, read_card

if TYPE_CHECKING:
    from esen_flows.data.dataset import Dataset
    from esen_flows.training.config import TrainingConfig
    from esen_flows.training.finetune import Parent
    from esen_flows.training.recipe import Stage


@dataclass(frozen=True)
class DataSource:
    """Labelled data, as one --data option names them.

    Attributes
    ----------
    path
        Dataset folder or file of labelled data.
    repeats
        How often an epoch uses the data.
    name
        Name of these data in a card's recipe; "" if none is given.
    """

    path: Path
    repeats: int
    name: str


@dataclass(frozen=True)
class HeldOut:
    """The data to validate on: a dataset of their own, or a share of the training data.

    Attributes
    ----------
    path
        Dataset to validate on; None for a share of the training data.
    fraction
        Share of every group that is held out, by whole materials.
    seed
        Seed of the split.
    """

    path: Path | None
    fraction: float
    seed: int

    def split(self, dataset: "Dataset", folder: Path | None) -> tuple["Dataset", "Dataset"]:
        """Training and validation set.

        Parameters
        ----------
        dataset
            All labelled data.
        folder
            Folder whose split.json says which records were held out; it is written, or read if it exists. None keeps no
            record.

        Returns
        -------
        tuple[Dataset, Dataset]
            Training set and validation set.

        Raises
        ------
        InputError
            The folder holds another split.
        """
        from esen_flows.data.importing import read_dataset
        from esen_flows.data.splits import read_split, split_by_material, write_split

        if self.path is not None:
            return dataset, read_dataset(self.path)
        file = None if folder is None else folder / "split.json"
        if file is not None and file.exists():
            known = read_split(file)
            if (known.fraction, known.seed) != (self.fraction, self.seed):
                raise InputError(
                    f"{file} holds out {known.fraction:g} with seed {known.seed}, but {self.fraction:g} and seed "
                    f"{self.seed} were given; use a new folder, or give the former values"
                )
            return known.apply(dataset)
        split = split_by_material(dataset, self.fraction, self.seed)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_split(file, split)
        return split.apply(dataset)


def parse_sources(texts: Sequence[str], option: str = "--data") -> list[DataSource]:
    """Data sources from PATH, PATH:REPEATS and NAME=PATH.

    Parameters
    ----------
    texts
        Values of the option.
    option
        What they were given with, for messages.

    Returns
    -------
    list[DataSource]
        One for each text. An existing path that contains `=` or `:` is taken as a path.

    Raises
    ------
    UsageError
        No data were given.
    InputError
        There is nothing at a path.
    """
    if not texts:
        raise UsageError(f"give {option}: a labelled extended XYZ file, or a folder made by esen-flows data import")
    sources = []
    for text in texts:
        name, separator, rest = text.partition("=")
        name, rest = (name, rest) if separator and not Path(text).exists() else ("", text)
        path, _, number = rest.rpartition(":")
        has_repeats = path and number.isdigit() and not Path(rest).exists()
        source = DataSource(Path(path), int(number), name) if has_repeats else DataSource(Path(rest), 1, name)
        if not source.path.exists():
            raise InputError(
                f"{option} {text}: nothing at {source.path}; give a dataset folder or a file of labelled data"
            )
        sources.append(source)
    return sources


def read_sources(sources: Sequence[DataSource]) -> "Dataset":
    """All data as one dataset.

    Parameters
    ----------
    sources
        Data sources; at least one.

    Returns
    -------
    Dataset
        The only dataset, or a mixture in which each dataset counts as often as its source says.

    Raises
    ------
    InputError
        Data cannot be read.
    """
    from esen_flows.data.dataset import mixture
    from esen_flows.data.importing import read_dataset

    parts = [(read_dataset(source.path), source.repeats) for source in sources]
    for source, (dataset, _) in zip(sources, parts, strict=True):
        remarks = dataset.provenance.get("remarks")  # of a file; a folder has them in its index
        for remark, count in remarks.items() if isinstance(remarks, dict) else ():
            typer.echo(f"{source.path}: {count} records: {remark}", err=True)
    return parts[0][0] if len(parts) == 1 and parts[0][1] == 1 else mixture(parts)


def read_stages(
    what: str,
    recipe: str | None,
    number: int | None,
    sources: Sequence[DataSource],
    held_out: HeldOut,
    changes: Mapping[str, Any],
    folder: Path | None,
) -> list["Stage"]:
    """The stages of a training file or of a card's recipe, with their data.

    Parameters
    ----------
    what, recipe, number, sources, changes
        As for `stage_configs`.
    held_out
        Data to validate on.
    folder
        Folder of the training, where splits are written; None writes nothing.

    Returns
    -------
    list[Stage]
        Stages in the order in which they are trained.

    Raises
    ------
    UsageError
        There is no such recipe or stage, or data that the recipe names were not given.
    InputError
        A file cannot be read.
    """
    from esen_flows.training.recipe import Stage

    stages = []
    for name, config, chosen in stage_configs(what, recipe, number, sources, changes):
        stage_folder = folder / name if folder is not None and name else folder
        training, validation = held_out.split(read_sources(chosen), stage_folder)
        stages.append(Stage(name, config, training, validation))
    return stages


def stage_configs(
    what: str, recipe: str | None, number: int | None, sources: Sequence[DataSource], changes: Mapping[str, Any]
) -> Iterator[tuple[str, "TrainingConfig", list[DataSource]]]:
    """Name, settings and data of each stage of a training file or of a card's recipe, before data are read.

    Parameters
    ----------
    what
        Path of a training file, or name of a card.
    recipe
        Recipe of the card; None for its first.
    number
        The only stage wanted, from 1; None for all.
    sources
        Data sources.
    changes
        Settings by name that replace those of the file.

    Yields
    ------
    tuple[str, TrainingConfig, list[DataSource]]
        Name of the stage ("" for that of a training file), settings, and data.

    Raises
    ------
    UsageError
        There is no such recipe or stage, or data that the recipe names were not given.
    InputError
        A file cannot be read.
    """
    from esen_flows.training.config import config_from_dict, read_config

    for name, file, wanted in _stage_files(what, recipe, number):
        config = read_config(file)
        if changes:
            config = config_from_dict({**config.to_dict(), **changes}, f"{file} with --set")
        yield name, config, _choose_data(wanted, sources, what)


def _stage_files(what: str, recipe: str | None, number: int | None) -> Iterator[tuple[str, Path, dict[str, int]]]:
    """Name, training file and wanted data of each stage; data are repeats by name, or empty for all that is given."""
    if what.endswith((".yaml", ".yml")) or "/" in what:
        if recipe is not None or number is not None:
            raise UsageError("--recipe and --stage choose from a card; a training file is one stage")
        yield "", Path(what), {}
        return
    card = read_card(what)
    if not card.recipes:
        raise UsageError(f"the card {card.name!r} has no recipe; give a training file")
    if recipe is not None and recipe not in card.recipes:
        raise UsageError(f"--recipe {recipe}: the card {card.name!r} has {', '.join(card.recipes)}")
    stages = card.recipes[recipe or next(iter(card.recipes))]
    if number is not None and not 1 <= number <= len(stages):
        raise UsageError(f"--stage {number}: the recipe has stages 1 to {len(stages)}")
    for place, stage in enumerate(stages, start=1):
        if number in (None, place):
            file = card_path(what).parent / stage.file
            yield f"{place}-{file.stem}", file, {data.name: data.repeats for data in stage.data}


def _choose_data(wanted: Mapping[str, int], sources: Sequence[DataSource], what: str) -> list[DataSource]:
    """The data of one stage: those that it names, repeated as it says, or all if it names none."""
    if not wanted or (len(wanted) == 1 and not any(source.name for source in sources)):
        return list(sources)
    by_name = {source.name: source for source in sources}
    if missing := [name for name in wanted if name not in by_name]:
        raise UsageError(
            f"{what} trains on {', '.join(wanted)}; missing: " + " ".join(f"--data {name}=PATH" for name in missing)
        )
    return [DataSource(by_name[name].path, repeats * by_name[name].repeats, name) for name, repeats in wanted.items()]


def read_parent_domain(path: Path | None, share: float, seed: int) -> "Parent | None":
    """Data of the domain that the parent of a fine-tuning was trained on.

    Parameters
    ----------
    path
        Dataset of the parent's domain, or None.
    share
        Share that is mixed into the training data; the rest shows what is forgotten.
    seed
        Seed of the split.

    Returns
    -------
    Parent | None
        Replayed and held-out data; None without a dataset.

    Raises
    ------
    InputError
        Data cannot be read, or the share is not in [0, 1).
    """
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
    # The share that the split takes out is trained on, and the rest is held out.
    held_out, replay = split_by_material(dataset, share, seed).apply(dataset)
    return Parent(replay, held_out)
