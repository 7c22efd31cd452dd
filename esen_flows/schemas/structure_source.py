"""Where the structures of a campaign come from: files, the store, a published set, or labelled datasets."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveInt, model_validator

from esen_flows.schemas.frozen import Closed
from esen_flows.schemas.protocol_types import one_or_more

PublishedSet = Literal["wbm", "phonondb-103", "mdr", "dynamat"]
Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more)]


class StructureQuery(Closed):
    """Structures of the store: input structures, or the relaxed structures of finished relaxations.

    All fields except `of` are filters of `esen_flows.store.queries.query`; a filter that is not given accepts all.

    Attributes
    ----------
    of
        "structures": input structures, the default; "relax": relaxed structures.
    chemsys
        Chemical system, such as "Ga-As".
    formula
        Formula in any order.
    elements
        Elements that a structure must contain.
    spacegroup
        Number or symbol of the space group.
    campaign
        Name of a campaign that has the structure.
    where
        Condition on fields of the documents.
    sort
        Field by which structures are sorted.
    limit
        Largest number of structures.
    model
        Force field of the relaxations.
    """

    of: Literal["structures", "relax"] = "structures"
    chemsys: str | None = None
    formula: str | None = None
    elements: Names = ()
    spacegroup: int | str | None = None
    campaign: str | None = None
    where: str | None = None
    sort: str | None = None
    limit: PositiveInt | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _model_of_relaxations(self) -> "StructureQuery":
        if self.model is not None and self.of == "structures":
            raise ValueError("input structures have no force field; leave `model` out, or write `of: relax`")
        return self

    def filters(self) -> dict[str, Any]:
        """Filters that are given.

        Returns
        -------
        dict[str, Any]
            Arguments of `esen_flows.store.queries.query`.
        """
        return {name: value for name, value in self.model_dump(exclude={"of"}).items() if value not in (None, ())}


class StructureSource(Closed):
    """Source of the structures: exactly one of files, a query of the store, a published set, and labelled datasets.

    Attributes
    ----------
    file
        Structure files; `FILE@3` is one structure of a file with several.
    query
        Structures of the store.
    published
        Published set of structures.
    folder
        Folder of the published set; None, the default, is where esen-flows keeps its downloads.
    dataset
        Labelled datasets: folders of `esen-flows data import`, or source files that are small enough for memory.
    sample
        Number of records that are drawn from the datasets, at random and always the same; None, the default, takes all.
    """

    file: Names = ()
    query: StructureQuery | None = None
    published: PublishedSet | None = None
    folder: str | None = None
    dataset: Names = ()
    sample: PositiveInt | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "StructureSource":
        given = [name for name in ("file", "query", "published", "dataset") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of file, query, published and dataset, got {', '.join(given) or 'none'}"
            )
        if self.sample is not None and not self.dataset:
            raise ValueError("`sample` draws from `dataset`; leave it out")
        if self.folder is not None and self.published is None:
            raise ValueError("`folder` is where a published set is; leave it out")
        return self
