"""Checks the fields of reports that scripts/plot draws, so that a file of another kind is told in
one line. A field may be missing or null, as in reports of old versions and of runs that failed, and
what needs it is then left out."""

import json

from measure import field
from report_figures import COMPARED, SECTIONS, STAGES, SWEEP_AXES

OBJECTS = (*SECTIONS, "rates", "counts", "options", "policy", "stages", "model", "device")
OBJECTS += ("memory", "shares", "latency_ms")
TEXTS = ("model.path", "device.name", "precision", "bound")
NUMBERS = (
    *(name for _, name, _, _ in COMPARED),
    *("stages." + stage for stage in STAGES),
    *("lines.out", "options.beam_size", "options.batch_tokens"),
    *("latency_ms.p50", "latency_ms.p90", "latency_ms.p99", "latency_ms.max"),
)
# No time, rate or size is larger, and none that is not 0 is smaller.
LARGEST, LEAST = 1e18, 1e-18
# A time of 0 has no place on a logarithmic axis.
POSITIVE = ("from", "to")


class WrongField(ValueError):
    """Has a message that names the field."""


def require(name, value, kind, right):
    if right:
        return
    text = json.dumps(value)
    text = "is missing" if value is None else text if len(text) <= 40 else text[:40] + "…"
    raise WrongField("%s: %s, expected %s" % (name, text, kind))


def require_number(name, value, positive=False):
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    # A value that is not a number (NaN) is in no range.
    right = right and (LEAST if positive else 0) <= value <= LARGEST
    kind = "a number from %s to 10^18" % ("10^-18" if positive else "0")
    require(name, value, kind, right)


def check_bars(bars):
    require("latency_ms.histogram", bars, "a list", isinstance(bars, list))
    for place, bar in enumerate(bars):
        name = "latency_ms.histogram[%d]" % place
        require(name, bar, "an object", isinstance(bar, dict))
        for key in ("from", "to", "lines"):
            require_number(name + "." + key, bar.get(key), key in POSITIVE)


def check_report(report):
    """Raises WrongField if a field of the report has a value that no chart can show."""
    for name in OBJECTS:
        value = report.get(name)
        require(name, value, "an object", value is None or isinstance(value, dict))
    for name in TEXTS:
        value = field(report, name)
        require(name, value, "a text", value is None or isinstance(value, str))
    for name in NUMBERS:
        value = field(report, name)
        if value is not None:
            require_number(name, value, name.startswith("latency_ms.p"))
    if (bars := field(report, "latency_ms.histogram")) is not None:
        check_bars(bars)


def check_axes(axes):
    """Raises WrongField if the points of a sweep cannot be drawn."""
    for axis, points in axes.items():
        if axis not in SWEEP_AXES:
            continue
        name = "axes." + axis
        require(name, points, "a list", isinstance(points, list))
        for place, point in enumerate(points):
            name = "axes.%s[%d]" % (axis, place)
            require(name, point, "an object", isinstance(point, dict))
            for key in (axis, "tokens_per_second"):
                require_number("%s.%s" % (name, key), point.get(key), positive=True)


def missing_sections(value):
    """Returns the sections that an object lacks which has others of a report. Returns an empty list
    for anything else."""
    if not isinstance(value, dict):
        return []
    found = [name for name in (*SECTIONS, "rates", "counts") if isinstance(value.get(name), dict)]
    return [name for name in SECTIONS if name not in found] if found else []
