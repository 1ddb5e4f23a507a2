"""A sample service that uses heavy packages for a few requests, as services do; not part of the distribution."""
