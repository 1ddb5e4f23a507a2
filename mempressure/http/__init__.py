"""The HTTP/1.1 server that the exporter and the actuator share, with its TLS, users, limits and logging.

Only these two services import it; the library, which runs in application workers, never does.
"""
