"""Describes charts without drawing them, and computes their ticks and the texts of numbers.

chart_svg.py draws a chart for a page, and chart_png.py draws it with matplotlib.
"""

import math
from dataclasses import dataclass, field

# The palette of Okabe and Ito can be told apart with every common form of colour blindness. It is
# without yellow and black, which are hard to see on white and on dark grounds.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
# Series differ in their markers too, so that a print without colours can be read.
MARKERS = ("circle", "square", "triangle", "diamond", "cross")


@dataclass
class Axis:
    label: str
    log: bool = False
    # These whole numbers are the ticks, if there are any.
    ticks: list = field(default_factory=list)


@dataclass
class Lines:
    """Shows values over a quantity. A series is (label, [(x, y), ...])."""

    title: str
    x: Axis
    y: Axis
    series: list


@dataclass
class Histogram:
    """Shows bars (from, to, height) over a logarithmic axis, and vertical marks (label, x)."""

    title: str
    x: Axis
    y: Axis
    bars: list
    marks: list


@dataclass
class Row:
    label: str
    start: float
    end: float
    text: str
    # It is the place of the colour in PALETTE.
    colour: int = 0
    # A sum over the run has a length, but no place in it.
    faint: bool = False


@dataclass
class Spans:
    """Shows a horizontal bar for each row, and vertical marks (label, x)."""

    title: str
    x: Axis
    rows: list
    marks: list = field(default_factory=list)
    note: str = ""


def number(value):
    """Returns a short text of a number, with three significant digits: 1.23 M, 45.6 k, 0.012."""
    if value == 0:
        return "0"
    for prefix, factor in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if abs(value) >= 0.9995 * factor:
            return digits(value / factor) + prefix
    return digits(value)


def digits(value):
    """Returns a number with three significant digits, without an exponent or trailing zeros."""
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = "%.*f" % (min(places, 9), value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def linear_ticks(low, high, most=6):
    """Returns round numbers from `low` to `high`, at most `most` of them."""
    if high <= low:
        return [low]
    raw = (high - low) / max(1, most - 1)
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low, high, most=6):
    """Returns powers of ten and, if they are few, 2 and 5 times them."""
    for parts in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1, 3), (1,)):
        ticks = [
            part * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for part in parts
            if low * (1 - 1e-9) <= part * 10.0**power <= high * (1 + 1e-9)
        ]
        if len(ticks) <= most:
            return ticks
    return ticks[:: -(-len(ticks) // most)]


def limits(axis, values):
    """Returns the ends of an axis that shows the values, with some room around them."""
    low, high = min(values), max(values)
    if axis.log:
        # A single value gets half a decade around it.
        room = (high / low) ** 0.06 if high > low else 2
        return low / room, high * room
    high = high if high > 0 else 1
    return min(0, low), high * 1.06


def ticks_of(axis, low, high, most=6):
    """Returns [(place, text), ...] of the ticks of an axis."""
    inside = [tick for tick in axis.ticks if low <= tick <= high]
    if inside:
        return [(tick, str(tick)) for tick in inside[:: -(-len(inside) // (most + 2))]]
    ticks = log_ticks(low, high, most) if axis.log else []
    # A narrow range has fewer than two round powers.
    ticks = ticks if len(ticks) > 1 else linear_ticks(low, high, most)
    return [(tick, number(tick)) for tick in ticks]


def ends_of(chart):
    """Returns ((low, high) of x, (low, high) of y) of Lines or a Histogram, or of x for Spans."""
    if isinstance(chart, Lines):
        points = [point for _, points in chart.series for point in points]
        return limits(chart.x, [x for x, _ in points]), limits(chart.y, [y for _, y in points])
    if isinstance(chart, Histogram):
        edges = [edge for bar in chart.bars for edge in bar[:2]] + [x for _, x in chart.marks]
        return limits(chart.x, edges), limits(chart.y, [height for _, _, height in chart.bars])
    edges = [edge for row in chart.rows for edge in (row.start, row.end)]
    return limits(chart.x, edges + [x for _, x in chart.marks] + chart.x.ticks)
