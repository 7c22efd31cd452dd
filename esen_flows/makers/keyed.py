"""Jobs whose result keys are fixed when they are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from jobflow import Job, Maker, job

from esen_flows.errors import InputError
from esen_flows.schemas.requests import ResultRequest


@dataclass
class KeyedStep(Maker):
    """What jobflow finds as the Maker of a keyed job: it carries out the job's body, and refuses changes.

    The request of a keyed job, with its key, was made from the fields of our Maker. jobflow skips a job without a Maker
    silently, so that a change by `update_maker_kwargs` would have no effect and no message.

    Parameters
    ----------
    name
        Name of the job.
    body
        Function of the job.
    made_by
        Full names of the class of the Maker that made the job and of its base classes, for jobflow's class filters.
    """

    name: str = "step"
    body: Callable[..., Any] | None = None
    made_by: list[str] = field(default_factory=list)

    @job
    def make(self, **arguments: Any) -> Any:
        """Call the body.

        Parameters
        ----------
        arguments
            Arguments of the body.

        Returns
        -------
        Any
            What the body returns.
        """
        assert self.body is not None
        return self.body(**arguments)

    def update_kwargs(
        self,
        update: Mapping[str, Any],
        name_filter: str | None = None,
        class_filter: type[Maker] | Maker | None = None,
        nested: bool = True,
        dict_mod: bool = False,
    ) -> "KeyedStep":
        """Refuse a change of fields, unless the filters are for other Makers.

        Parameters
        ----------
        update
            The new values of fields.
        name_filter
            Part of the names of the Makers that are meant; None: all.
        class_filter
            Class of the Makers that are meant, or a Maker of that class; None: all.
        nested, dict_mod
            Accepted as in jobflow, and unused.

        Returns
        -------
        KeyedStep
            This step, which the filters leave out.

        Raises
        ------
        InputError
            The change is meant for this job; the message names what to do instead.
        """
        if name_filter is not None and name_filter not in self.name:
            return self
        meant = type(class_filter) if isinstance(class_filter, Maker) else class_filter
        if meant is not None and _full_name(meant) not in self.made_by:
            return self
        self._refuse(update)

    def _refuse(self, update: Mapping[str, Any]) -> NoReturn:
        raise InputError(
            f"job {self.name!r} was made with its key, so {', '.join(map(str, update))} cannot be changed any more; "
            "change the Maker before it makes jobs: maker = maker.update_kwargs({...}), then maker.make(...)"
        )


def keyed_job(
    maker: Maker,
    body: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    name: str,
    kind: str,
    request: ResultRequest | None,
    data: Sequence[str] = (),
) -> Job:
    """Make the job of a request, with its kind and result key in its metadata, where workers and people look for them.

    Parameters
    ----------
    maker
        The Maker that makes the job.
    body
        Function of the job.
    arguments
        Arguments of the body, which may refer to outputs of other jobs.
    name
        Name of the job.
    kind
        Kind of its result.
    request
        What it computes; None: not known before the flow runs.
    data
        Fields of its output that go to jobflow's `data` store.

    Returns
    -------
    Job
        The job.
    """
    made_by = [_full_name(base) for base in type(maker).__mro__ if issubclass(base, Maker)]
    step = KeyedStep(name=name, body=body, made_by=made_by)
    work = job(step.make, **({"data": list(data)} if data else {}))(**arguments)
    return noted(work, name, kind, request)


def noted(work: Job, name: str, kind: str, request: ResultRequest | None) -> Job:
    """Name a job, and note its kind and result key in its metadata.

    Parameters
    ----------
    work
        Job to change.
    name
        Its new name.
    kind
        Kind of its result.
    request
        What it computes; None: not known before the flow runs.

    Returns
    -------
    Job
        The same job.
    """
    work.name = name
    work.update_metadata({"kind": kind} | ({} if request is None else {"result_key": request.key}), dynamic=False)
    return work


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
