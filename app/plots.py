"""Line charts with matplotlib, which lives in the worker and is tracked."""

import io
import threading
from collections.abc import Sequence

from app.utils.lazy_loader import get_lazy_loader

_loader = get_lazy_loader()
_figure = _loader.import_module("matplotlib.figure")
# matplotlib's caches of fonts and text are not made for several threads.
_drawing = threading.Lock()


def line_chart(values: Sequence[float]) -> bytes:
    """Return a PNG, 320 by 240 pixels, of the values in order."""
    with _drawing, _loader.using("matplotlib"):
        figure = _figure.Figure(figsize=(3.2, 2.4), dpi=100)
        figure.subplots().plot(values)
        file = io.BytesIO()
        # Without the version in it the picture is the same for the same values.
        figure.savefig(file, format="png", metadata={"Software": None})
        return file.getvalue()
