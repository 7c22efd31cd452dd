"""Structures and results in MongoDB, each computed once: the only room that talks to a database.

    connection.open_store(settings) -> results.Store    get, get_or_claim, commit, release, sweep, structures
    queries.query.query(store, kind, ...)               results by formula, elements, space group, model
    queries.query.find_by_prefix(store, digits)         results by the first digits of their key
    jobflow_store.job_store(store)                      a JobStore in the same database
    server.embedded.start, stop, status                 the private server of this user

Nothing is imported here, because the keeper of the private server and the heartbeat of claims are in this room too, and
import only the standard library.
"""
