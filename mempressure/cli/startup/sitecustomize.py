"""What Python runs at its start under `mempressure run`: observing or managing, then the application's sitecustomize.

Its folder is the first of `PYTHONPATH`; `sys.path` is as it would be without it from here on.
"""

import os
import sys

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def _begin() -> None:
    try:
        try:
            import mempressure  # noqa: F401 -- found, or brought in below
        except ModuleNotFoundError as error:
            if error.name != "mempressure":
                raise
            _find_mempressure()
        from mempressure.package_process import identity

        if identity.packages() is not None:  # its worker is observed; the observer would cost it 3 MiB
            return
        if "MEMPRESSURE_MANAGED" in os.environ:
            from mempressure.hooks.management import watch_for_servers

            watch_for_servers()
        else:
            from mempressure.worker.observer import observe

            observe()
    except Exception as error:  # noqa: BLE001 -- the application is not to suffer, whatever this is
        sys.stderr.write(f"mempressure: process {os.getpid()} is neither observed nor managed: {error}\n")


def _find_mempressure() -> None:
    """Import the package that this file belongs to, in an environment that does not have it."""
    from importlib.util import module_from_spec, spec_from_file_location

    package = os.path.dirname(os.path.dirname(_FOLDER))
    spec = spec_from_file_location(
        "mempressure", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
    )
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{package} cannot be imported")
    module = sys.modules["mempressure"] = module_from_spec(spec)
    spec.loader.exec_module(module)


def _go_on() -> None:
    """Run the application's own sitecustomize in place of this one, where it has one."""
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _FOLDER]
    this = sys.modules.pop("sitecustomize")
    try:
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401 -- what it does is what it is for; if it is there
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        sys.modules.setdefault("sitecustomize", this)


_begin()
_go_on()
