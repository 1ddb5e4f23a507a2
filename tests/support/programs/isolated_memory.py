"""A worker whose packages need more memory than it has.

Run as `python -m tests.support.programs.isolated_memory HOW DIRECTORY`.

Calls a function of each package and unloads it, prints what it took, and waits for a line on standard input. Then it
does what HOW says and prints what became of each call:

- sequence: calls one package after the other; nothing unloads.
- burst: calls all at once, and keeps every call going until all of them have begun or failed.
- greedy: has one package process take memory without end, then calls it again.
"""

import importlib
import json
import os
import sys
import threading
import time

from mempressure import get_lazy_loader
from mempressure.errors import MempressureError
from tests.support.programs.isolated_answers import ANSWERS


def work(name, begun="", go=""):
    """Return an answer of the package; say on the file system that the call has begun, and wait for another file."""
    answer = eval(ANSWERS[name][0], vars(importlib.import_module(name)))  # noqa: S307 -- one of the four above
    if begun:
        open(begun, "w").close()
    while go and not os.path.exists(go):
        time.sleep(0.005)
    return int(answer)


def eat():
    """Take memory without end."""
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(4096)) * 1024)


def told(function, *arguments):
    try:
        return function(*arguments)
    except MempressureError as error:
        return f"{type(error).__name__}: {error}"


def sequence(functions, _):
    return {name: told(function, name) for name, function in functions.items()}


def burst(functions, directory):
    became = {}

    def call(name):
        became[name] = told(functions[name], name, f"{directory}/{name}", f"{directory}/go")

    threads = [threading.Thread(target=call, args=(name,)) for name in functions]
    for thread in threads:
        thread.start()
    while not all(name in became or os.path.exists(f"{directory}/{name}") for name in functions):
        time.sleep(0.005)
    open(f"{directory}/go", "w").close()
    for thread in threads:
        thread.join()
    return became


def greedy(functions, _):
    name, function = next(iter(functions.items()))
    package = function.package
    first = told(package.call, __spec__.name, "eat")
    return {"eat": first, "deaths": package.process_deaths, name: told(function, name)}


def main(how, directory):
    loader = get_lazy_loader()
    functions = {name: loader.isolated(name)(work) for name in ANSWERS}
    costs = {}
    for name, function in functions.items():
        function(name)
        costs[name] = loader.unload(name).reclaimed_bytes
    print(json.dumps(costs), flush=True)  # noqa: T201 -- the test reads it
    sys.stdin.readline()
    became = {"sequence": sequence, "burst": burst, "greedy": greedy}[how](functions, directory)
    unloads = sum(function.package.unloads for function in functions.values()) - len(functions)
    print(json.dumps([became, unloads]), flush=True)  # noqa: T201 -- the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
