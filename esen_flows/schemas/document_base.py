"""The base of all documents."""

from typing import Annotated

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict

Array = Annotated[np.ndarray, BeforeValidator(np.asarray)]
SCHEMA_VERSION = 1


class Document(BaseModel):
    """Base of all documents: arrays allowed, unknown fields refused."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
