"""The bases of values that users write: frozen and closed, and for protocols with a hash that outlives new fields."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from esen_flows.schemas.keys import sha256_of


class Closed(BaseModel):
    """A frozen value; unknown fields are refused, because a misspelt one would be lost without a word."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Frozen(Closed):
    """A closed value with a stable hash.

    A field that was added after the first release is named in `added_later`. At its default it is left out of the hash,
    so that old keys stay valid. All other fields always count, so that a changed default changes the key.

    Attributes
    ----------
    added_later
        Names of the fields that were added after the first release.
    """

    # No field has a meaning at infinity, and JSON, of which keys and documents are made, has no infinity.
    model_config = ConfigDict(allow_inf_nan=False)
    added_later: ClassVar[frozenset[str]] = frozenset()

    def key_fields(self) -> dict[str, Any]:
        """The fields that enter the hash, nested values included.

        Returns
        -------
        dict[str, Any]
            Values for JSON, by field.
        """
        fields: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if name in self.added_later and value == info.get_default(call_default_factory=True):
                continue
            fields[name] = value.key_fields() if isinstance(value, Frozen) else self.model_dump(mode="json")[name]
        return fields

    def hash(self) -> str:
        """Hash of the class name and the key fields.

        Returns
        -------
        str
            Hexadecimal sha256.
        """
        return sha256_of({"type": type(self).__name__, **self.key_fields()})

    @classmethod
    def of(cls, protocol: "Frozen") -> Self:
        """The part of a larger protocol that has the fields of this class.

        Parameters
        ----------
        protocol
            A protocol with all fields of this class, and others.

        Returns
        -------
        Self
            The values of these fields.
        """
        return cls(**{name: getattr(protocol, name) for name in cls.model_fields})
