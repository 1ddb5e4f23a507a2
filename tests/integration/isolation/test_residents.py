"""A resident inside an isolated function lives in the package's process, and ends with it."""

import os

from tests.support.functions import isolated_residents


def test_it_is_loaded_once_in_the_packages_process_and_goes_with_it(package, isolate):
    looked_up = isolate(isolated_residents.looked_up)
    value, loads, pid = looked_up(3)
    assert (value, loads) == (3, [pid])
    assert pid != os.getpid()
    assert looked_up(4) == (4, [pid], pid)
    assert not isolated_residents.table.loaded
    package.unload()
    _, loads, later = looked_up(5)
    assert loads == [later] != [pid]
