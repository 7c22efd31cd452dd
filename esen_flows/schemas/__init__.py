"""Values that are stored: keys, protocols, documents, model cards. Nothing here imports torch or a database driver.

`keys` and `checkpoint_header` need numpy and the standard library only, so that the force field rooms can use them on
a bare GPU machine; the others need pydantic.
"""
