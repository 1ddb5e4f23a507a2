"""Configuration of Superset: SQLite beside this file, and no protection that the clients would have to pass."""

import os
from datetime import timedelta

_FOLDER = os.path.dirname(os.path.abspath(__file__))
SECRET_KEY = "a key of the benchmark, which is no secret"  # noqa: S105 -- as it says
SQLALCHEMY_DATABASE_URI = f"sqlite:///{_FOLDER}/superset.db?check_same_thread=false"
PERMANENT_SESSION_LIFETIME = timedelta(days=3650)
PREVENT_UNSAFE_DB_CONNECTIONS = False
RATELIMIT_ENABLED = False
TALISMAN_ENABLED = False
WTF_CSRF_ENABLED = False
