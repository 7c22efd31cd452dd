"""Training whose data grow from the dynamics of the force field that is trained: its specification and its record."""

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from esen_flows.errors import InputError
from esen_flows.schemas.declarations import ForceKind
from esen_flows.schemas.frozen import Closed
from esen_flows.schemas.md import Ensemble
from esen_flows.schemas.protocol_types import HIGHEST_KELVIN, one_or_more

Names = Annotated[tuple[str, ...], BeforeValidator(one_or_more), Field(min_length=1)]
Choice = Literal["teacher", "committee", "random"]
# Fields that decide when to stop, and nothing of what a round computes: a longer run continues a shorter one.
_STOPPING = frozenset({"rounds", "drift_mev_per_atom_ps", "force_mae_mev_per_angstrom"})
_FIELD_FAULTS = ("extra_forbidden", "missing")  # types of errors for which a list of all fields helps


class ActiveLearningSpec(Closed):
    """Everything that defines a run; paths are relative to the file of the specification.

    Attributes
    ----------
    teacher
        Force field that labels frames: name of a card, or path of a checkpoint.
    teacher_forces
        "conservative", the default: forces as the teacher gives them. "direct": those of its direct heads.
    average_inversion
        Whether labels are averaged with those of the inverted cell, as `esen-flows label` does; no effect on an
        O(3)-equivariant teacher.
    students
        Checkpoints or cards to start from. The first one is the force field that is trained and whose dynamics are run;
        the others are its committee, for `choose: committee`.
    structures
        Files of structures from which dynamics start.
    data
        Labelled data of the teacher to begin with; every round trains on them, and on the frames of the rounds before.
    validation
        Held-out labelled data; None, the default, holds out 8 % of `data`.
    choose
        Which frames are labelled for training. "teacher", the default: all frames are labelled, and those with the
        largest differences of forces are kept. "committee": those on whose forces the students differ most, for
        teachers that cost too much to label all. "random": any.
    rounds
        Most rounds of training. 0 only measures the student.
    frames_per_round
        Frames that a round adds to the data.
    repeats
        How often an epoch sees frames that were added; the other data once.
    temperatures_kelvin
        Temperatures of the initial velocities; each structure runs once at each of them in every round.
    ensemble
        "nve", the default, in which the drift of the energy is measured on the same trajectories; "nvt" likewise, by
        the conserved quantity of the thermostat.
    duration_ps
        Length of each trajectory.
    time_step_fs
        Time step; None, the default: 0.5 fs with hydrogen, otherwise 2 fs.
    frame_interval_steps
        Steps from one frame to the next.
    seed
        Seed of velocities and choices. Every round has other velocities, so that errors on the frames of a round are
        those on frames that were not trained on.
    most_force_ev_per_angstrom
        Frames with a larger force of the teacher on an atom are not used.
    stage
        Training file of a round, which starts from the weights of the round before; None, the default: that of
        fine-tuning. It is needed for students with direct forces.
    settings
        Settings of the stage by name that replace those of the file or of fine-tuning.
    drift_mev_per_atom_ps
        The run ends when no trajectory fails, no frame is refused, every absolute slope of the energy is at most this
        with its interval added, and `force_mae_mev_per_angstrom` holds too. 0.5 by default, as in an audit.
    force_mae_mev_per_angstrom
        Largest mean absolute error of forces on the student's own frames; None, the default: all rounds are run.
    """

    teacher: str
    teacher_forces: ForceKind = "conservative"
    average_inversion: bool = True
    students: Names
    structures: Names
    data: Names
    validation: str | None = None
    choose: Choice = "teacher"
    rounds: int = Field(default=2, ge=0, le=1000)
    frames_per_round: PositiveInt = 50
    repeats: PositiveInt = 1
    temperatures_kelvin: tuple[Annotated[PositiveFloat, Field(le=HIGHEST_KELVIN)], ...] = Field(
        default=(300.0, 600.0), min_length=1
    )
    ensemble: Ensemble = "nve"
    duration_ps: float = Field(default=4.0, gt=0.0, le=1e5)
    time_step_fs: PositiveFloat | None = Field(default=None, le=100.0)
    frame_interval_steps: PositiveInt = 20
    seed: int = Field(default=0, ge=0, lt=2**62)
    most_force_ev_per_angstrom: PositiveFloat = 30.0
    stage: str | None = None
    settings: Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)] = Field(
        default_factory=dict
    )
    drift_mev_per_atom_ps: PositiveFloat = 0.5
    force_mae_mev_per_angstrom: PositiveFloat | None = None

    @model_validator(mode="after")
    def _committee(self) -> "ActiveLearningSpec":
        if (self.choose == "committee") != (len(self.students) > 1):
            raise ValueError(
                f"choose: committee needs at least two students, and others need one; got choose: {self.choose} and "
                f"{len(self.students)}"
            )
        return self

    @property
    def of_rounds(self) -> dict[str, Any]:
        """Fields that decide what a round computes: all except those that say when to stop."""
        return self.model_dump(mode="json", exclude=set(_STOPPING))


def spec_of(values: Any, source: str) -> ActiveLearningSpec:
    """A specification from the values of a file.

    Parameters
    ----------
    values
        Values by name.
    source
        Where they are from, for messages.

    Returns
    -------
    ActiveLearningSpec
        The checked specification.

    Raises
    ------
    InputError
        Names are unknown or missing, or values are of the wrong type or out of range; the message says which.
    """
    if not isinstance(values, dict):
        raise InputError(f"{source} must be a mapping of names to values, got {type(values).__name__}")
    try:
        return ActiveLearningSpec.model_validate(values)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'specification'}: {fault['msg']} (got {str(fault['input'])[:80]})"
            for fault in error.errors()
        ]
        names = any(fault["type"] in _FIELD_FAULTS for fault in error.errors())
        known = f"; fields are {', '.join(ActiveLearningSpec.model_fields)}" if names else ""
        raise InputError(f"{source}: {'; '.join(faults)}{known}") from error


class TrajectoryRecord(Closed):
    """One trajectory of a student.

    Attributes
    ----------
    structure
        Number and formula of its structure.
    temperature_kelvin
        Temperature of the initial velocities.
    frames
        Number of recorded frames; of a trajectory that failed, of those before.
    slope_mev_per_atom_ps
        Slope of the conserved energy; None if it failed.
    slope_interval_mev_per_atom_ps
        Half-width of its 95 % interval; None if it failed.
    failure
        Why the trajectory did not reach its end; None if it did.
    """

    structure: str
    temperature_kelvin: float
    frames: int
    slope_mev_per_atom_ps: float | None = None
    slope_interval_mev_per_atom_ps: float | None = None
    failure: str | None = None


class RoundRecord(Closed):
    """A student after some rounds of training, judged on its own dynamics.

    Attributes
    ----------
    round
        Rounds of training; 0 for the student as it was given.
    model_key
        Key of the student.
    checkpoint
        Its checkpoint, relative to the folder of the run.
    training_structures
        Structures that it was trained on in its last round; 0 in round 0.
    frames_added
        Those of them that came from dynamics in the round before.
    trajectories
        Its dynamics.
    labelled
        Frames of these dynamics that the teacher labelled.
    refused
        Number of frames that could not be used, by reason.
    own
        Errors on its own frames against the teacher, as those of `evaluate_dataset`: on all frames, or, unless
        `choose: teacher`, on as many random ones as a round adds. None of stresses where there are no labels of them.
    held_out
        Errors on the held-out data.
    unmet
        Criteria that it does not meet, in words; empty if it meets all.
    seconds
        Wall time of its dynamics, labels and errors, without its training and without calls that were interrupted.
    """

    round: int
    model_key: str
    checkpoint: str
    training_structures: int
    frames_added: int
    trajectories: tuple[TrajectoryRecord, ...]
    labelled: int
    refused: dict[str, int]
    own: dict[str, float]
    held_out: dict[str, float]
    unmet: tuple[str, ...]
    seconds: float

    @property
    def failures(self) -> int:
        """Number of trajectories that failed."""
        return sum(one.failure is not None for one in self.trajectories)

    @property
    def largest_slope(self) -> tuple[float, float] | None:
        """Absolute slope of the energy and the half-width of its interval (meV/atom/ps), whose sum is largest."""
        found = [
            (abs(one.slope_mev_per_atom_ps), one.slope_interval_mev_per_atom_ps or 0.0)
            for one in self.trajectories
            if one.slope_mev_per_atom_ps is not None
        ]
        return max(found, key=sum, default=None)
