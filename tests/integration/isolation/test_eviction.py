"""Evicting real packages, each in a process of its own: what a test run imports besides would pin them."""

import json
import subprocess
import sys
from statistics import median
from textwrap import dedent
from urllib.request import urlopen

import pytest

from stack.processes import free_port

SECONDS = 220

CYCLES = """
    import json, sys
    from importlib import import_module
    from mempressure.eviction import evict
    from mempressure.measure.process import private_bytes

    package, expression, cycles = sys.argv[1], sys.argv[2], int(sys.argv[3])
    def use(): return str(eval(expression, {name: import_module(name) for name in sys.argv[4:]}))
    root, first = import_module(package), use()
    aliases = {name: module for name, module in sys.modules.items() if name.startswith(package + ".")}
    reclaimed, loaded, answers = [], [], set()
    for _ in range(cycles):
        reclaimed.append(evict(package).reclaimed_bytes)
        answers.add(use())
        loaded.append(private_bytes())
    print(json.dumps({
        "first": first, "answers": sorted(answers), "reclaimed": reclaimed, "loaded": loaded,
        "same": sys.modules[package] is root and all(sys.modules[name] is m for name, m in aliases.items()),
    }))
"""

SYMPY = (
    "(sympy.expand((sympy.Symbol('x') + 1) ** 3), sympy.integrate(sympy.sin(sympy.Symbol('x'))), "
    "sympy.core.add.Add is sympy.Add)"
)
NETWORKX = "(sorted(networkx.dijkstra_path(networkx.path_graph(9), 0, 8)), networkx.algorithms.pagerank.__module__)"


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", dedent(code), *arguments], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("package", "expression", "modules", "at_least"),
    [
        ("sympy", SYMPY, ("sympy", "sympy.core.add"), 4 << 20),
        ("networkx", NETWORKX, ("networkx",), 1 << 20),
        ("mpmath", "(mpmath.mpf(2) ** 0.5, mpmath.zeta(3))", ("mpmath",), 1 << 19),
        ("jinja2", "jinja2.Template('{{ a }}!').render(a=1)", ("jinja2",), 0),
    ],
)
def test_twenty_cycles_give_the_same_answers_and_keep_memory_flat(package, expression, modules, at_least):
    found = run(CYCLES, package, expression, "20", *modules)
    assert found["answers"] == [found["first"]]
    assert found["same"]
    assert sorted(found["reclaimed"])[10] > at_least
    # The first loads fill arenas that the later ones find.
    assert median(found["loaded"][12:]) <= median(found["loaded"][4:12]) * 1.02


USED_MEANWHILE = """
    import json, sys, threading, time
    import sympy as sp, sympy.core.add as add
    from mempressure.errors import EvictionRefusedError
    from mempressure.eviction import evict

    sys.setswitchinterval(1e-4)
    wrong = []
    def use(number, start):
        start.wait()
        try:
            x = sp.Symbol("x")
            answer = str(sp.expand((x + number) ** 2))
            if answer != f"x**2 + {2 * number}*x + {number ** 2}" or not isinstance(x + 1, add.Add):
                wrong.append(answer)
        except BaseException as error:
            wrong.append(repr(error))

    evictions, refusals, took = 0, [], 1.0
    for round in range(16):
        start = threading.Event()
        threads = [threading.Thread(target=use, args=(number, start)) for number in range(2, 10)]
        for thread in threads: thread.start()
        # From the first moment of the eviction to after its end.
        timer = threading.Timer(took * round / 12, start.set)
        timer.start()
        began = time.monotonic()
        try:
            evict("sympy")
            evictions += 1
            took = time.monotonic() - began
        except EvictionRefusedError as error:
            refusals.append(str(error))
        for thread in threads: thread.join()
        timer.join()
    print(json.dumps({"wrong": wrong[:5], "evictions": evictions, "refusals": refusals}))
"""


def test_threads_that_use_sympy_at_any_moment_of_an_eviction_get_right_answers_only():
    found = run(USED_MEANWHILE)
    assert found["wrong"] == []
    assert found["evictions"] >= 2
    assert found["evictions"] + len(found["refusals"]) == 16


def test_whatever_of_sympy_is_held_pins_it():
    found = run(
        """
        import json, sympy
        from mempressure.errors import EvictionRefusedError
        from mempressure.eviction import evict
        from sympy import expand
        x = sympy.Symbol("x")
        pins = []
        for _ in range(2):
            try: evict("sympy")
            except EvictionRefusedError as error: pins.append(error.pins)
            assert str(expand((x + 1) ** 2)) == "x**2 + 2*x + 1"
            del expand
            from sympy import expand
            if pins and len(pins) == 1: expand = lambda e: sympy.expand(e)
        print(json.dumps(pins))
        """
    )
    assert "function sympy.core.function.expand is held by __main__.expand" in found[0]
    assert any("__main__.x" in pin for pin in found[0])
    assert any("__main__.x" in pin for pin in found[1])


SERVICE = """
import json, logging
import networkx
from mempressure.errors import EvictionRefusedError
from mempressure.eviction import evict

mine = logging.getLogger("networkx.utils.backends")  # networkx's own, which the application may hold too

def app(environ, start_response):
    try:
        evicted = {"modules": evict("networkx").modules}
    except EvictionRefusedError as error:
        evicted = {"refused": str(error)}
    evicted["path"] = networkx.dijkstra_path(networkx.path_graph(5), 0, 4)
    evicted["same logger"] = networkx.utils.backends._logger is mine
    networkx.utils.backends._logger.warning("of networkx: %d", len(evicted["path"]))
    environ["gunicorn.socket"]  # it is gunicorn
    logging.getLogger("gunicorn.error").warning("of gunicorn")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(evicted).encode()]
"""


def test_networkx_is_evicted_under_gunicorn_and_every_logger_works_on(processes, tmp_path):
    """gunicorn holds loggers of its own, and to each of them leads every logger, networkx's too."""
    (tmp_path / "service.py").write_text(SERVICE)
    port = free_port()
    command = ["gunicorn", "service:app", "--chdir", str(tmp_path), "--bind", f"127.0.0.1:{port}"]
    server = processes.start("gunicorn", [sys.executable, "-m", *command, "--no-control-socket", "--timeout", "60"])
    server.wait_until(lambda: "Booting worker" in server.log.read_text())
    for cycle in (1, 2):
        with urlopen(f"http://127.0.0.1:{port}/", timeout=60) as response:
            answer = json.load(response)
        assert answer == {"modules": answer.get("modules"), "path": [0, 1, 2, 3, 4], "same logger": True}, answer
        assert answer["modules"] > 100
        log = server.log.read_text()
        assert log.count("of networkx: 5") == log.count("of gunicorn") == cycle
