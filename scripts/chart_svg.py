"""Draws charts as SVG in one HTML page, with the standard library alone. The page loads nothing,
and follows the reader's choice of light or dark."""

import math
from html import escape

from charts import MARKERS, PALETTE, Histogram, Lines, ends_of, number, ticks_of

# A chart is as wide as a phone's screen, in units that are pixels there. Wider windows show several
# charts in a row.
WIDTH, HEIGHT = 400, 250
LETTER = 6.2  # This is about the width of a letter of 11 pixels.

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --panel: #f6f7f8; --text: #1b1f23;
  --soft: #57606a; --line: #d0d7de; %s }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1216; --panel: #181c22; --text: #e6e9ec;
  --soft: #9da7b1; --line: #363c44; --c0: #4aa8e0; --c2: #2fbf93; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 12px; max-width: 1320px; background: var(--ground);
  color: var(--text); font: 15px/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 1.6rem 0 .5rem; }
p { margin: .3rem 0; } p.soft { color: var(--soft); font-size: .87rem; }
.grid { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%%, 380px), 1fr)); }
figure { margin: 0; padding: 8px; background: var(--panel); border: 1px solid var(--line);
  border-radius: 6px; min-width: 0; }
figcaption { font-weight: 600; padding: 0 0 4px; }
svg.chart { display: block; width: 100%%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--text); }
svg .soft { fill: var(--soft); } svg .axis { stroke: var(--line); fill: none; }
svg .mark { stroke: var(--text); stroke-dasharray: 3 3; }
ul.legend { list-style: none; margin: 4px 0 0; padding: 0; display: flex; flex-wrap: wrap;
  gap: 2px 14px; font-size: .82rem; } ul.legend svg { vertical-align: -1px; margin-right: 5px; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; }
th, td { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; } th { color: var(--soft); font-weight: 600; }
@media (max-width: 480px) { table { font-size: .78rem; } th, td { padding-right: 7px; } }
th.left, td.left { text-align: left; } td.wide { white-space: normal; min-width: 7em; }
""" % " ".join("--c%d: %s;" % pair for pair in enumerate(PALETTE))


def colour(place):
    return "var(--c%d)" % (place % len(PALETTE))


def marker(place, x, y, title=""):
    """Returns the marker of a series, which shows `title` under the mouse."""
    shape = MARKERS[place % len(MARKERS)]
    inner = "<title>%s</title>" % escape(title) if title else ""
    paint = 'fill="%s"' % colour(place)
    if shape == "circle":
        return '<circle cx="%.1f" cy="%.1f" r="4" %s>%s</circle>' % (x, y, paint, inner)
    points = {
        "square": ((-3.6, -3.6), (3.6, -3.6), (3.6, 3.6), (-3.6, 3.6)),
        "triangle": ((0, -4.6), (4.6, 3.6), (-4.6, 3.6)),
        "diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)),
        "cross": ((-4, -1.4), (-1.4, -1.4), (-1.4, -4), (1.4, -4), (1.4, -1.4), (4, -1.4), (4, 1.4))
        + ((1.4, 1.4), (1.4, 4), (-1.4, 4), (-1.4, 1.4), (-4, 1.4)),
    }[shape]
    path = " ".join("%.1f,%.1f" % (x + dx, y + dy) for dx, dy in points)
    return '<polygon points="%s" %s>%s</polygon>' % (path, paint, inner)


def scale(axis, ends, first, last):
    """Returns the function that maps a value to its place between two pixels."""
    convert = math.log if axis.log else float
    low, high = map(convert, ends)
    return lambda value: first + (convert(value) - low) / (high - low) * (last - first)


def text(x, y, words, anchor="middle", kind=""):
    kind = ' class="%s"' % kind if kind else ""
    return '<text x="%.1f" y="%.1f" text-anchor="%s"%s>%s</text>' % (
        x,
        y,
        anchor,
        kind,
        escape(words),
    )


def line(x1, y1, x2, y2, kind="axis"):
    return '<path d="M%.1f %.1fL%.1f %.1f" class="%s"/>' % (x1, y1, x2, y2, kind)


def framed(title, height, parts, below=""):
    return (
        '<figure><figcaption>%s</figcaption><svg class="chart" viewBox="0 0 %d %d" role="img" '
        'aria-label="%s">%s</svg>%s</figure>'
        % (escape(title), WIDTH, height, escape(title), "".join(parts), below)
    )


def x_axis(axis, ends, place, top, bottom):
    """Returns the grid lines, numbers and name of a horizontal axis. A number that would touch the
    one before it is left out."""
    parts, free = [], 0.0
    for tick, words in ticks_of(axis, *ends):
        x = place(tick)
        half = len(words) * LETTER / 2
        parts.append(line(x, top, x, bottom))
        if x - half >= free and x + half <= WIDTH:
            parts.append(text(x, bottom + 15, words, kind="soft"))
            free = x + half + 5
    middle = (place(ends[0]) + place(ends[1])) / 2
    return [*parts, text(middle, bottom + 32, axis.label)]


def draw_marks(marks, place, top, bottom):
    """Returns vertical lines with their names above. Names that would touch take turns in rows."""
    parts, free = [], [0.0, 0.0, 0.0]
    for words, value in sorted(marks, key=lambda mark: mark[1]):
        x, half = place(value), len(words) * LETTER / 2
        middle = min(max(x, half), WIDTH - half)
        row = next((i for i, end in enumerate(free) if middle - half >= end), len(free) - 1)
        free[row] = middle + half + 4
        parts += [
            line(x, top, x, bottom, "mark"),
            text(middle, top - 4 - 12 * row, words),
        ]
    return parts


def plane(chart, top=18):
    """Returns (places of x, places of y, top, bottom, parts) of a chart with two axes."""
    x_ends, y_ends = ends_of(chart)
    bottom = HEIGHT - 40
    numbers = ticks_of(chart.y, *y_ends)
    left = 10 + LETTER * max(len(words) for _, words in numbers)
    x, y = scale(chart.x, x_ends, left, WIDTH - 10), scale(chart.y, y_ends, bottom, top)
    parts = x_axis(chart.x, x_ends, x, top, bottom)
    for tick, words in numbers:
        parts += [
            line(left, y(tick), WIDTH - 10, y(tick)),
            text(left - 4, y(tick) + 4, words, "end", "soft"),
        ]
    return x, y, top, bottom, parts


def draw_lines(chart):
    x, y, top, _, parts = plane(chart)
    parts.append(text(0, top - 7, chart.y.label, "start"))
    legend = []
    for place, (label, points) in enumerate(chart.series):
        path = "L".join("%.1f %.1f" % (x(a), y(b)) for a, b in points)
        parts.append(
            '<path d="M%s" fill="none" stroke="%s" stroke-width="1.8"/>' % (path, colour(place))
        )
        for a, b in points:
            words = "%s %s: %s %s" % (chart.x.label, number(a), number(b), chart.y.label)
            parts.append(marker(place, x(a), y(b), "\n".join(filter(None, (label, words)))))
        if label:
            legend.append(
                '<li><svg width="12" height="12">%s</svg>%s</li>'
                % (marker(place, 6, 6), escape(label))
            )
    below = '<ul class="legend">%s</ul>' % "".join(legend) if legend else ""
    return framed(chart.title, HEIGHT, parts, below)


def draw_histogram(chart):
    x, y, top, bottom, parts = plane(chart, 62)
    parts.append(text(0, 12, chart.y.label, "start"))
    for start, end, height in chart.bars:
        words = "%s to %s: %s" % (number(start), number(end), digits_of(height))
        parts.append(
            '<rect x="%.1f" y="%.1f" width="%.2f" height="%.1f" fill="%s"><title>%s</title></rect>'
            % (
                x(start),
                y(height),
                max(1, x(end) - x(start) - 0.5),
                bottom - y(height),
                colour(0),
                escape(words),
            )
        )
    parts += draw_marks(chart.marks, x, top, bottom)
    return framed(chart.title, HEIGHT, parts)


def digits_of(height):
    return number(height) + " %"


def draw_spans(chart):
    ends = ends_of(chart)
    top = 44 if chart.marks else 8
    bottom = top + 24 * len(chart.rows)
    left = 10 + LETTER * max(len(row.label) for row in chart.rows)
    right = WIDTH - 12 - LETTER * max(len(row.text) for row in chart.rows)
    x = scale(chart.x, ends, left, right)
    parts = x_axis(chart.x, ends, x, top, bottom)
    for place, row in enumerate(chart.rows):
        y = top + 24 * place + 12
        first, last = sorted((x(row.start), x(row.end)))
        paint = 'fill="%s"' % colour(row.colour)
        if row.faint:
            paint += ' fill-opacity=".35" stroke="%s"' % colour(row.colour)
        parts += [
            '<rect x="%.1f" y="%.1f" width="%.1f" height="14" %s><title>%s</title></rect>'
            % (first, y - 7, max(1, last - first), paint, escape(row.label + ": " + row.text)),
            text(left - 5, y + 4, row.label, "end"),
            text(WIDTH, y + 4, row.text, "end"),
        ]
    parts += draw_marks(chart.marks, x, top, bottom)
    note = '<p class="soft">%s</p>' % escape(chart.note) if chart.note else ""
    return framed(chart.title, bottom + 40, parts, note)


def draw(chart):
    if isinstance(chart, Lines):
        return draw_lines(chart)
    return draw_histogram(chart) if isinstance(chart, Histogram) else draw_spans(chart)


def grid(charts):
    return '<div class="grid">%s</div>' % "".join(draw(chart) for chart in charts)


def table(headings, rows, left=1):
    """Returns a table whose first `left` columns are aligned to the left."""

    def cells(tag, row):
        return "<tr>%s</tr>" % "".join(
            '<%s class="%s">%s</%s>'
            % (
                tag,
                ("left" if i < left else "") + (" wide" if len(str(cell)) > 24 else ""),
                escape(str(cell)),
                tag,
            )
            for i, cell in enumerate(row)
        )

    return '<div class="table"><table>%s%s</table></div>' % (
        cells("th", headings),
        "".join(cells("td", row) for row in rows),
    )


def page(title, parts):
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,"><title>%s</title><style>%s</style></head>\n'
        "<body><h1>%s</h1>\n%s\n</body></html>\n"
        % (escape(title), STYLE, escape(title), "\n".join(parts))
    )
