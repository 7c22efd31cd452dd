"""Every structure and result in MongoDB, computed once: the only room that talks to a database.

    connection.open_store(settings) -> results.Store   get, get_or_claim, commit, release, sweep, structures
    query.query(store, kind, ...)                       results by formula, elements, space group, model
    query.find_by_prefix(store, digits)                 results by the first digits of their key
    jobflow_store.job_store(store)                      a JobStore in the same database
    embedded.start, stop, status                        the private server of this user

Nothing is imported here: the keeper of the private server lives in this room too and needs the standard library alone.
"""
