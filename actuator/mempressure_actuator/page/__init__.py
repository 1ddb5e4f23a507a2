"""The status page: shows this machine's memory in a browser, with forms to unload packages and set thresholds."""
