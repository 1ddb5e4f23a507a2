"""Every kind of pin: refused by name, and everything left exactly as it was."""

import atexit
import codecs
import contextvars
import copyreg
import functools
import gc
import logging
import os
import queue
import signal
import sys
import threading
import types
import warnings
import weakref
from contextlib import contextmanager

import pytest

from mempressure.errors import EvictionRefusedError
from mempressure.eviction import evict
from tests.support import evictable as evictable_package
from tests.support.evictable import snapshot

APP = "tests_application"


@pytest.fixture
def app():
    """A module of an application that uses the package."""
    module = types.ModuleType(APP)
    sys.modules[APP] = module
    yield module
    del sys.modules[APP]


def registries():
    return (
        dict(copyreg.dispatch_table),
        list(warnings.filters),
        list(sys.meta_path),
        gc.isenabled(),
        list(gc.callbacks),
        list(logging.root.handlers),
    )


def pins(package):
    """Evict, which must be refused and change nothing; return the pins."""
    before, lists = snapshot(package), registries()
    with pytest.raises(EvictionRefusedError) as caught:
        evict(package)
    assert snapshot(package) == before
    assert registries() == lists
    assert sys.modules[package].area(3) == 9
    assert caught.value.pins
    return "\n".join(caught.value.pins)


def run(app, code):
    """Run statements as the application's own."""
    exec(code, vars(app))  # noqa: S102 - the test's own


def released(package):
    """Check that nothing else was in the way."""
    evict(package)


def test_a_function_imported_by_name(evictable, app):
    run(app, "from evictable import answer as theirs")
    assert pins(evictable) == "function evictable.answer is held by tests_application.theirs"
    del app.theirs
    released(evictable)


def test_a_class_without_any_method(evictable, app):
    run(app, "from evictable import Refused")
    assert pins(evictable) == "class evictable.Refused is held by tests_application.Refused"
    del app.Refused
    released(evictable)


def test_an_instance(evictable, app):
    run(app, "import evictable\nsquare = evictable.Square(2)")
    assert pins(evictable) == (
        "class evictable.shapes.Square is held through an instance of evictable.shapes.Square "
        "by tests_application.square"
    )
    del app.square
    released(evictable)


def test_a_subclass(evictable, app):
    run(app, "import evictable\nclass Mine(evictable.Square): pass")
    assert "class evictable.shapes.Square is held by class tests_application.Mine" in pins(evictable)
    del app.Mine
    released(evictable)


def test_a_dict_imported_by_name(evictable, app):
    run(app, "from evictable import LIMITS")
    assert pins(evictable) == "a dict of the package is held by tests_application.LIMITS"
    del app.LIMITS
    released(evictable)


def test_the_namespace_of_a_module(evictable, app):
    run(app, "import evictable\nnames = vars(evictable.shapes)")
    assert pins(evictable) == "the namespace of module evictable.shapes is held by tests_application.names"
    del app.names
    released(evictable)


def test_a_bound_method_in_a_container_of_an_instance(evictable, app):
    run(
        app, "import evictable\nclass Session: pass\nsession = Session()\nsession.todo = [[evictable.area.cache_clear]]"
    )
    assert "tests_application.Session" in pins(evictable)
    del app.session
    released(evictable)


def test_a_partial_in_a_queue(evictable, app):
    app.todo = queue.SimpleQueue()
    app.todo.put(functools.partial(sys.modules[evictable].answer))
    assert "function evictable.answer is held by" in pins(evictable)
    del app.todo
    released(evictable)


def test_a_default_argument_and_a_closure(evictable, app):
    run(app, "import evictable\ndef call(f=evictable.answer): return f()")
    assert pins(evictable) == "function evictable.answer is held by function tests_application.call"
    run(app, "def outer():\n    f = evictable.answer\n    def inner(): return f()\n    return inner\ncall = outer()")
    assert pins(evictable) == "function evictable.answer is held by function tests_application.outer.<locals>.inner"
    del app.call
    released(evictable)


def test_a_variable_of_a_running_function(evictable):
    held = sys.modules[evictable].Square(2)
    assert "class evictable.shapes.Square is held through an instance of evictable.shapes.Square by" in pins(evictable)
    assert held.side == 2
    del held
    released(evictable)


@contextmanager
def in_a_thread(body):
    """Run `body(started, leave)` in a thread, until the block ends."""
    started, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=body, args=(started, leave), name="busy")
    thread.start()
    assert started.wait(10)
    yield
    leave.set()
    thread.join(10)


def test_a_threads_local(evictable):
    local = threading.local()

    def body(started, leave):
        local.square = sys.modules[evictable].Square(2)
        started.set()
        leave.wait(30)

    with in_a_thread(body):
        assert "class evictable.shapes.Square is held through an instance of evictable.shapes.Square by" in pins(
            evictable
        )
    released(evictable)


def test_a_context_variable(evictable):
    variable = contextvars.ContextVar("variable")
    context = contextvars.copy_context()
    context.run(lambda: variable.set(sys.modules[evictable].Square(2)))
    assert "class evictable.shapes.Square is held through an instance of evictable.shapes.Square by" in pins(evictable)
    del context
    released(evictable)


def test_a_frame_inside_the_package(evictable, tmp_path):
    def body(started, leave):
        sys.modules["evictable.busy"].wait(started, leave)

    (tmp_path / evictable / "busy.py").write_text("def wait(started, leave):\n    started.set()\n    leave.wait(30)\n")
    __import__("evictable.busy")
    with in_a_thread(body):
        assert pins(evictable) == "thread 'busy' is in evictable.busy.wait"
    released(evictable)


def test_a_suspended_generator_elsewhere(evictable, app):
    app.sides = sys.modules["evictable.shapes"].sides()
    assert next(app.sides) == 1
    assert "function evictable.shapes.sides is held by the suspended generator sides" in pins(evictable)
    app.sides.close()
    released(evictable)


def test_a_suspended_generator_of_its_own(evictable):
    shapes = sys.modules["evictable.shapes"]
    shapes.KEPT = shapes.sides()
    next(shapes.KEPT)
    assert pins(evictable) == "generator sides is suspended"
    shapes.KEPT.close()
    released(evictable)


def test_a_coroutine(evictable, app):
    app.waiting = sys.modules["evictable.shapes"].later()
    assert "evictable.shapes.later" in pins(evictable)
    app.waiting.close()
    del app.waiting
    released(evictable)


def test_a_class_registered_in_another_modules_dict(evictable, app):
    app.CONVERTERS = {sys.modules[evictable].Square: str}
    assert pins(evictable) == "class evictable.shapes.Square is held by tests_application.CONVERTERS"
    app.CONVERTERS.clear()
    released(evictable)


def test_what_the_application_registered_in_the_package(evictable, app):
    run(app, "import evictable\ndef handle(): pass\nevictable.registry.HANDLERS['x'] = handle")
    assert pins(evictable) == "function tests_application.handle was given to the package, which would forget it"
    sys.modules["evictable.registry"].HANDLERS.clear()
    released(evictable)


def test_a_weak_registration(evictable, app):
    app.receivers = weakref.WeakSet([sys.modules[evictable].answer])
    assert pins(evictable) == "function evictable.answer is registered elsewhere by a weak reference"
    app.receivers.clear()
    released(evictable)


def test_an_exit_handler(evictable):
    atexit.register(sys.modules[evictable].answer)
    assert "function evictable.answer is held by" in pins(evictable)
    assert "an exit handler" in pins(evictable)
    atexit.unregister(sys.modules[evictable].answer)
    released(evictable)


def test_a_finalizer(evictable):
    class Thing:
        pass

    thing = Thing()
    finalizer = weakref.finalize(thing, sys.modules[evictable].answer)
    assert "function evictable.answer is held by class weakref.finalize" in pins(evictable)
    finalizer.detach()
    released(evictable)


def test_a_signal_handler(evictable):
    before = signal.signal(signal.SIGUSR2, lambda *_: None)
    signal.signal(signal.SIGUSR2, sys.modules[evictable].answer)
    assert "function evictable.answer is held by" in pins(evictable)
    assert "a signal handler" in pins(evictable)
    signal.signal(signal.SIGUSR2, before)
    released(evictable)


def test_a_profile_function(evictable):
    shapes = sys.modules["evictable.shapes"]
    exec("def profile(*event): pass", vars(shapes))  # noqa: S102 - as the package
    sys.setprofile(shapes.profile)
    try:
        with pytest.raises(EvictionRefusedError) as caught:
            evict(evictable)
    finally:
        sys.setprofile(None)
    assert "evictable.shapes.profile" in str(caught.value)
    released(evictable)


def test_a_finder_on_the_meta_path(evictable, app, tmp_path):
    (tmp_path / evictable / "finding.py").write_text("class Finder:\n    def find_spec(self, *_): return None\n")
    finding = __import__("evictable.finding").finding
    sys.meta_path.append(finding.Finder())
    assert pins(evictable) == (
        "class evictable.finding.Finder is held through an instance of evictable.finding.Finder by sys.meta_path"
    )
    sys.meta_path.pop()
    released(evictable)


def test_a_logging_handler(evictable, tmp_path):
    (tmp_path / evictable / "logs.py").write_text("import logging\nclass Handler(logging.Handler): pass\n")
    logs = __import__("evictable.logs").logs
    logger = logging.getLogger("tests.evictable")
    logger.addHandler(logs.Handler())
    assert "class evictable.logs.Handler is held through an instance of evictable.logs.Handler by" in pins(evictable)
    logger.handlers.clear()
    gc.collect()
    released(evictable)


@pytest.fixture
def logging_package(tmp_path, monkeypatch):
    """The name of a loaded package with a logger, which `logging` is rid of in the end."""
    name = "evictable_logs"
    files = {
        "__init__.py": """
            import logging
            from evictable_logs import deep
            log = logging.getLogger(__name__)
            log.addHandler(logging.NullHandler())
            def area(side): return side * side
            def tell(words): log.warning(words)
            """,
        "deep.py": """
            import logging
            log = logging.getLogger(__name__)
            """,
    }
    evictable_package.write(tmp_path, files, name=name)
    monkeypatch.syspath_prepend(tmp_path)
    __import__(name)
    yield name
    evictable_package.forget(name)
    for key in [key for key in logging.root.manager.loggerDict if key.partition(".")[0] == name]:
        del logging.root.manager.loggerDict[key]


def test_loggers_are_no_pins_whoever_holds_them_and_work_on(logging_package, app, caplog):
    run(
        app,
        """
import logging
class Server:  # as gunicorn's
    def __init__(self): self.log, self.root = logging.getLogger("server.error"), logging.getLogger()
server = Server()
theirs, manager = logging.getLogger("evictable_logs"), logging.root.manager
placeholders = [each for each in manager.loggerDict.values() if type(each) is logging.PlaceHolder]
""",
    )
    for _ in range(2):
        released(logging_package)
        caplog.clear()
        sys.modules[logging_package].tell("filled again")
        app.server.log.error("and the server's")
        assert [(record.name, record.message) for record in caplog.records] == [
            (logging_package, "filled again"),
            ("server.error", "and the server's"),
        ]
        assert sys.modules[logging_package].log is app.theirs


@pytest.mark.parametrize(
    ("code", "pin"),
    [
        (
            "class Handler(logging.Handler): pass\ntheirs.addHandler(Handler())",
            "an instance of tests_application.Handler is on the logger 'evictable_logs'",
        ),
        (
            "theirs.addHandler(logging.StreamHandler())",
            "an instance of logging.StreamHandler is on the logger 'evictable_logs'",
        ),
        (
            "def mine(record): return True\nlogging.getLogger('evictable_logs.deep').addFilter(mine)",
            "function tests_application.mine is on the logger 'evictable_logs.deep'",
        ),
    ],
)
def test_what_is_on_its_loggers(logging_package, app, code, pin):
    run(app, f"import logging\ntheirs = logging.getLogger('evictable_logs')\n{code}")
    assert pin in pins(logging_package).splitlines()
    app.theirs.handlers[1:] = []
    logging.getLogger("evictable_logs.deep").filters.clear()
    released(logging_package)


def test_a_codec(evictable, tmp_path):
    (tmp_path / evictable / "coding.py").write_text("def search(name): return None\n")
    coding = __import__("evictable.coding").coding
    codecs.register(coding.search)
    assert "function evictable.coding.search is held by" in pins(evictable)
    codecs.unregister(coding.search)
    released(evictable)


def test_a_finalizing_instance(evictable, tmp_path):
    (tmp_path / evictable / "closing.py").write_text(
        "class Base:\n    def __del__(self): pass\nclass Pool(Base): pass\nPOOL = Pool()\n"
    )
    closing = __import__("evictable.closing").closing
    assert pins(evictable).startswith("an instance of evictable.closing.Pool has a __del__ method")
    del closing.POOL
    released(evictable)


def test_a_held_lock(evictable):
    registry = sys.modules["evictable.registry"]
    registry.LOCK = threading.Lock()
    with registry.LOCK:
        assert "an instance of _thread.lock of the package is held by" in pins(evictable)
    released(evictable)


def test_an_open_file(evictable, tmp_path):
    registry = sys.modules["evictable.registry"]
    registry.LOG = (tmp_path / "log").open("w")
    assert "a TextIOWrapper of the package is open" in pins(evictable).replace("an instance of _io.", "a ")
    registry.LOG.close()
    released(evictable)


def test_an_open_socket(evictable):
    import socket

    registry = sys.modules["evictable.registry"]
    registry.PAIR = list(socket.socketpair())
    assert "an instance of socket.socket of the package is open" in pins(evictable)
    while registry.PAIR:
        registry.PAIR.pop().close()
    released(evictable)


def test_garbage_is_no_pin(evictable):
    class Ring:
        pass

    ring = Ring()
    ring.itself, ring.square = ring, sys.modules[evictable].Square(2)
    del ring
    released(evictable)


def test_an_at_fork_hook(evictable):
    # There is no way to unregister one: in a process of its own.
    from tests.support.forking import in_child

    def check():
        from mempressure.eviction import eviction

        eviction._inherited = frozenset()
        os.register_at_fork(after_in_parent=sys.modules[evictable].answer)
        with pytest.raises(EvictionRefusedError) as caught:
            evict(evictable)
        assert "function evictable.answer is held by" in str(caught.value)

    in_child(check)


def test_an_audit_hook(evictable):
    from tests.support.forking import in_child

    def check():
        from mempressure.eviction import eviction

        eviction._inherited = frozenset()
        sys.addaudithook(lambda *_: None)
        with pytest.raises(EvictionRefusedError) as caught:
            evict(evictable)
        assert "an audit hook is installed" in caught.value.reason

    in_child(check)


def test_at_most_ten_are_named(evictable, app):
    exec("\n".join(f"def f{n}(): pass" for n in range(30)), vars(sys.modules[evictable]))  # noqa: S102 - as app
    app.all = [getattr(sys.modules[evictable], f"f{n}") for n in range(30)]
    assert len(pins(evictable).splitlines()) == 10


def test_the_error_holds_nothing_of_the_package(evictable, app):
    run(app, "from evictable import answer")
    with pytest.raises(EvictionRefusedError) as caught:
        evict(evictable)
    del app.answer
    evict(evictable)  # while the error and its traceback are still there
    assert caught.value.pins
