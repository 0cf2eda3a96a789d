"""Where the studies are: SUREFOOT_STUDY, or a SQLite file in a folder store."""

import os
import re
from pathlib import Path
from typing import Any

from stages.common.errors import ConfigError, NotNow
from stages.common.store import Store

# A server that is gone without a word is noticed in seconds (libpq's options).
PATIENCE = {"connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 15_000}
# A transaction whose worker is asleep, or gone with its machine, is ended: others wait for what it has locked. Set in the session,
# since pools of connections (PgBouncer) refuse it at the start of one.
LIMITS = """SET idle_in_transaction_session_timeout = 30000;
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3"""
# What no other try mends, by libpq's words, and what does.
TLS = {
    "root certificate file": "Set PGSSLROOTCERT to the authority's certificate.",
    "certificate verify failed": "Set PGSSLROOTCERT to the certificate of the authority that signed the server's.",
    "does not match host name": "Give the server a certificate for that name, or another host in SUREFOOT_STUDY.",
    "server does not support SSL": "Turn TLS on there, or end SUREFOOT_STUDY with ?sslmode=disable.",
}


def url(store: Store) -> str:
    """Give the study database's address.

    Raises:
        ConfigError: SQLite beside an S3 store: pods do not share a file; or the file's name would be read otherwise.

    """
    given = os.environ.get("SUREFOOT_STUDY", "")
    if store.address.startswith("s3://") and (not given or given.startswith("sqlite")):
        raise ConfigError(
            "SUREFOOT_STUDY: an s3 store needs a Postgres database for its studies: postgresql://user:password@host/database."
        )
    file = given.removeprefix("sqlite:///").partition("?")[0] if given.startswith("sqlite:///") else ""
    if given and not given.startswith("postgresql://") and file in {"", ":memory:"}:
        raise ConfigError("SUREFOOT_STUDY: neither postgresql://user:password@host/database nor sqlite:///file.")
    if file and not (folder := Path(file).absolute().parent).is_dir():
        raise ConfigError(f"SUREFOOT_STUDY: there is no folder {folder} for the database's file. Make it, or name another one.")
    if not given and (odd := re.search("[?%]", store.address)):
        raise ConfigError(f"{store.address}: a folder with {odd[0]!r} in its name can hold no study. Rename it, or set SUREFOOT_STUDY.")
    return given or f"sqlite:///{store.address}/study.db"


def check(address: str) -> None:
    """Connect once, so that a run fails before it works rather than after.

    Raises:
        NotNow: nobody answers there, or it refuses us.

    """
    if not address.startswith("sqlite"):
        connect(address).close()


def session(address: str) -> Any:
    """Connect to a Postgres as a search does: nobody waits long for what its transactions have locked.

    Raises:
        psycopg2.Error: nobody answers there, or it refuses us.

    """
    import psycopg2

    opened = psycopg2.connect(address, **PATIENCE)
    opened.autocommit = True
    with opened.cursor() as cursor:
        cursor.execute(LIMITS)
    opened.autocommit = False
    return opened


def connect(address: str) -> Any:
    """Connect to a Postgres.

    Raises:
        ConfigError: it is no address of a Postgres, or its certificate is not trusted.
        NotNow: nobody answers there, or it refuses us.

    """
    import psycopg2

    try:
        return psycopg2.connect(address, **PATIENCE)
    except (psycopg2.OperationalError, psycopg2.ProgrammingError) as error:
        said = str(error).strip().splitlines()[0]
        if said.startswith("invalid "):  # of the address, which stands in the message, and the password in it
            said = said.partition(" in URI: ")[0].partition(" token: ")[0]
            raise ConfigError(f"SUREFOOT_STUDY: {said}. Write postgresql://user:password@host/database.") from None
        if advice := next((advice for word, advice in TLS.items() if word in said), None):
            raise ConfigError(f"SUREFOOT_STUDY: {said.rstrip('.')}. {advice}") from None
        where = address.removeprefix("postgresql://").rpartition("@")[2].partition("?")[0]
        raise NotNow(f"the study database at {where} does not answer: {said}") from error
