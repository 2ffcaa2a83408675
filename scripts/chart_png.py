"""Draws charts with matplotlib into one PNG file."""

from charts import PALETTE, Histogram, Lines, ends_of, ticks_of

MARKERS = ("o", "s", "^", "D", "P")  # They have the order of charts.MARKERS.
GROUNDS = {"light": ("#ffffff", "#1b1f23", "#d0d7de"), "dark": ("#0f1216", "#e6e9ec", "#363c44")}
COLUMNS, INCHES = 3, (5.6, 3.8)
# A title with more characters than this would reach into the next chart.
TITLE = 48


def shortened(text, most):
    """Returns the beginning and the end of a text that has too many characters."""
    kept = (most - 1) // 2
    return text if len(text) <= most else "%s…%s" % (text[:kept].rstrip(), text[-kept:].lstrip())


def set_axis(place, which, axis, ends):
    """Sets the scale, the limits, the ticks and the name of the axis "x" or "y"."""
    from matplotlib.ticker import NullFormatter, NullLocator

    if axis.log:
        getattr(place, "set_%sscale" % which)("log")
    getattr(place, "set_%slim" % which)(*ends)
    own = getattr(place, which + "axis")
    own.set_minor_locator(NullLocator())
    own.set_minor_formatter(NullFormatter())
    getattr(place, "set_%sticks" % which)(*zip(*ticks_of(axis, *ends)))
    getattr(place, "set_%slabel" % which)(axis.label)


def draw_marks(place, marks, colour):
    """Draws vertical lines with their names, which run along the lines."""
    for words, value in marks:
        place.axvline(value, color=colour, linestyle="--", linewidth=0.9)
        place.annotate(
            words,
            (value, 1),
            (2, -3),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            va="top",
            fontsize=7.5,
            bbox={"facecolor": place.get_facecolor(), "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def draw_plane(place, chart, colour):
    """Draws Lines or a Histogram."""
    ends = ends_of(chart)
    set_axis(place, "x", chart.x, ends[0])
    set_axis(place, "y", chart.y, ends[1])
    if isinstance(chart, Histogram):
        for start, end, height in chart.bars:
            place.bar(start, height, end - start, align="edge", color=PALETTE[0], linewidth=0)
        return draw_marks(place, chart.marks, colour)
    for at, (label, points) in enumerate(chart.series):
        place.plot(
            *zip(*points),
            label=label or None,
            marker=MARKERS[at % len(MARKERS)],
            color=PALETTE[at % len(PALETTE)],
        )
    if any(label for label, _ in chart.series):
        place.legend(fontsize=7, framealpha=0.8)


def draw_spans(place, chart, colour):
    set_axis(place, "x", chart.x, ends_of(chart))
    for at, row in enumerate(chart.rows):
        paint = PALETTE[row.colour % len(PALETTE)]
        place.barh(
            at,
            row.end - row.start,
            left=row.start,
            height=0.6,
            color=paint + ("59" if row.faint else ""),
            edgecolor=paint,
        )
        # The text stands to the right of the axes, where no bar is.
        place.annotate(
            row.text,
            (1, at),
            (4, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    place.set_yticks(range(len(chart.rows)), [row.label for row in chart.rows])
    place.set_ylim(len(chart.rows) - 0.4, -0.6)
    draw_marks(place, chart.marks, colour)
    if chart.note:
        place.text(
            0,
            -0.24,
            chart.note,
            transform=place.transAxes,
            fontsize=7.5,
            va="top",
            wrap=True,
        )


def write(title, charts, path, ground="light"):
    """Writes the charts beside each other. Raises ImportError where matplotlib is missing, and
    OSError or ValueError where the file cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    back, front, grid = GROUNDS[ground]
    settings = {
        "font.size": 9,
        # A dollar sign in a name begins no formula.
        "text.parse_math": False,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": grid,
        "legend.labelcolor": front,
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "legend.facecolor"), back),
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"),
            front,
        ),
    }
    columns = min(COLUMNS, len(charts))
    rows = -(-len(charts) // columns)
    with matplotlib.rc_context(settings):
        figure, places = pyplot.subplots(
            rows,
            columns,
            squeeze=False,
            layout="constrained",
            figsize=(INCHES[0] * columns, INCHES[1] * rows),
        )
        for place, chart in zip(places.flat, charts):
            place.set_title(shortened(chart.title, TITLE), loc="left")
            draws = draw_plane if isinstance(chart, (Lines, Histogram)) else draw_spans
            draws(place, chart, front)
        for place in list(places.flat)[len(charts) :]:
            place.remove()
        figure.suptitle(shortened(title, TITLE * columns), fontsize=11)
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
