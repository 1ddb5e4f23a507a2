import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from mempressure.act import supervisors
from mempressure.act.supervisors import Supervisor, SupervisorFinder, base


class Server:
    def run(self, look):
        return look()


def in_a_thread(function):
    """Return what a function returns in another thread, as an agent calls it."""
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


def test_an_object_is_found_on_the_main_thread_s_stack_from_another_thread(monkeypatch):
    def look():
        return in_a_thread(lambda: base.find_on_main_thread(__name__, "Server"))

    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Server=Server))
    server = Server()
    assert server.run(look) is server
    assert look() is None


def test_nothing_is_found_where_the_server_was_not_imported():
    assert base.find_on_main_thread("no_such_server", "Server") is None
    assert base.find_on_main_thread("sys", "NoSuchClass") is None


def test_neither_a_server_nor_its_module_is_imported_for_looking():
    code = """
import sys
from mempressure.act import supervisors
finder = supervisors.SupervisorFinder()
assert finder.find().kind == "" and not finder.supervises and not supervisors.postpone_start(print)
servers = {"gunicorn", "uvicorn", "celery", "billiard", "multiprocessing", "asyncio"}
print([name for name in sys.modules if servers & set(name.split("."))])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


class FakeModule:
    def __init__(self):
        self.found = None
        self.supervises = False

    def find(self):
        return self.found

    def is_supervisor(self):
        return self.supervises


@pytest.fixture
def server(monkeypatch):
    module = FakeModule()
    monkeypatch.setattr(supervisors, "_present", lambda: [module])
    return module


def test_a_supervisor_is_looked_for_until_it_is_found_and_then_kept(server):
    ends = []

    class Found(Supervisor):
        kind = "found"

        def at_end(self, leave):
            leave()

    finder = SupervisorFinder(at_end=lambda: ends.append(1))
    assert finder.find().kind == ""
    server.found = Found()
    assert finder.find() is server.found
    first, server.found = server.found, Found()
    assert finder.find() is first
    assert ends == [1]


def test_a_process_that_turns_out_to_be_a_supervisor_says_so_but_never_what_it_forked(server):
    finder, forked = SupervisorFinder(), SupervisorFinder(forked=True)
    assert not finder.supervises
    server.supervises = True
    assert finder.supervises
    assert not forked.supervises
