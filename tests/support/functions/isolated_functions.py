"""Functions that the tests run in package processes; importable there, and cheap."""

import ctypes
import os
import resource
import signal
import sys
import threading
import time

from mempressure.isolation.function import IsolatedFunction, IsolatedPackage

recursive_package = IsolatedPackage("json")
other_package = IsolatedPackage("colorsys")


def nothing():
    return None


def echo(value):
    return value


def many(*args, **kwargs):
    return args, kwargs


def pid():
    return os.getpid()


def square(number):
    return number * number


def is_inheritable(descriptor):
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # it is not open


def surroundings():
    return {
        "variable": os.environ.get("MEMPRESSURE_PACKAGE_PROCESS"),
        "pythonpath": os.environ.get("PYTHONPATH"),
        "path": list(sys.path),
        "argv": list(sys.argv),
        "stdin": os.readlink("/proc/self/fd/0"),
        "files": sorted(os.listdir("/proc/self/fd"), key=int),
        "inheritable": [number for number in range(3, 64) if is_inheritable(number)],
        "threads": threading.active_count(),
    }


def wait(seconds):
    time.sleep(seconds)


def touch_then_wait(path, seconds):
    """Say on the file system that the call has begun, then take a while."""
    open(path, "w").close()
    time.sleep(seconds)
    return "done"


def touch_then_hold_the_gil(path, seconds):
    open(path, "w").close()
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


def wait_for_file(path):
    while not os.path.exists(path):
        time.sleep(0.005)
    return "seen"


def touch_then_wait_for_file(path, awaited):
    open(path, "w").close()
    return wait_for_file(awaited)


def append(path, text):
    with open(path, "a") as file:
        file.write(text)


def hook():
    append(os.environ["HOOK_FILE"], f"hook {os.getpid()}\n")


def failing_hook():
    raise RuntimeError("this hook fails")


def waiting_hook():
    wait_for_file(os.environ["HOOK_FILE"])


def dying_hook():
    kill_self()


def endless_hook():
    threading.Event().wait()


def register_atexit(path):
    import atexit

    atexit.register(append, path, "atexit\n")


def leave_thread_behind():
    threading.Thread(target=threading.Event().wait).start()


def leave_process_behind():
    """Fork a child that outlives the package process, and return its process id."""
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    return child


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def fork_in_c_then_die():
    """As a C library would: nothing that Python registered runs in the child, which keeps all descriptors."""
    child = ctypes.CDLL(None).fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)  # noqa: T201 - the test reads it
    kill_self()


def crash():
    ctypes.string_at(0)


def exit_at_once(status):
    os._exit(status)


class CustomError(Exception):
    def __init__(self, text, code):
        super().__init__(text, code)
        self.code = code


class UnpicklableError(Exception):
    def __reduce__(self):
        raise TypeError("not me")


class UnloadableError(Exception):
    """Pickles, but asks for two arguments again when unpickled."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class DisguisedError(Exception):
    def __reduce__(self):
        return str, ("not an exception",)


class HoldingError(Exception):
    """Holds something that cannot be pickled beside what can."""

    def __init__(self, text):
        super().__init__(text)
        self.code = 7
        self.lock = threading.Lock()


class TalkativeError(Exception):
    """Its text is made from what cannot be pickled."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def __str__(self):
        return f"held by {self.lock!r}"


class EvilLoad:
    """Unpickles only where it was pickled; elsewhere its code raises what it was told to."""

    def __init__(self, kind):
        self.kind = kind
        self.home = os.getpid()

    def __setstate__(self, state):
        if os.getpid() != state["home"]:
            raise state["kind"]("evil")
        self.__dict__.update(state)


def raise_it(kind, *arguments):
    raise kind(*arguments)


def raise_noted():
    error = KeyError("missing")
    error.add_note("a note")
    raise error from ValueError("the cause")


def raise_group():
    raise ExceptionGroup("two", [ZeroDivisionError("one"), ExceptionGroup("deep", [CustomError("text", 42)])])


def raise_local():
    class LocalError(Exception):
        pass

    raise LocalError("here only")


def raise_long(length):
    raise ValueError("x" * length)


def large(size):
    return b"x" * size


def nothing_of(*_):
    pass


def allow_no_more_memory_than(size):
    """Limit the address space to so much more than is in use, and return the process id."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + size, resource.RLIM_INFINITY))
    return os.getpid()


def recurse_for_ever():
    return recurse_for_ever()


def unpicklable():
    return threading.Lock()


def make_evil(kind):
    return EvilLoad(kind)


def interrupt():
    raise KeyboardInterrupt


def leave(status):
    sys.exit(status)


def make_array(number):
    import numpy as np

    return np.arange(number, dtype="f8")


def add_one_in_place(array):
    array += 1
    return array


def frame_sum(frame):
    return frame, float(frame["a"].sum())


def open_files():
    return len(os.listdir("/proc/self/fd"))


def isolate(package):
    def decorate(function):
        return IsolatedFunction(function, package=package)

    return decorate


@isolate(recursive_package)
def factorial(number):
    return 1 if number < 2 else number * factorial(number - 1)


@isolate(recursive_package)
def submit_in_process(number):
    return factorial.submit(number).result(timeout=5)


@isolate(other_package)
def call_of_another_package():
    return 1


@isolate(recursive_package)
def calls_another_package():
    return call_of_another_package()
