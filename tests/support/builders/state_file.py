"""State files taken apart and put together, with what no worker writes in them too."""

import json
import struct

HEADER = struct.Struct("<8sIIq")


def parts(data):
    """Return the catalog and the values of a state file."""
    _, count, _, _ = HEADER.unpack_from(data)
    return json.loads(data[HEADER.size + 8 * count :]), list(struct.unpack_from(f"<{count}d", data, HEADER.size))


def joined(catalog, values):
    """Return the file with this catalog, of which bytes are taken as they are, and these values."""
    text = catalog if isinstance(catalog, bytes) else json.dumps(catalog).encode()
    head = HEADER.pack(b"MPSTATE4", len(values), len(text), hash(text))
    return head + struct.pack(f"<{len(values)}d", *values) + text
