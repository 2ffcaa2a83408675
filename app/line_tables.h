// LineTables: what is kept of lines between reading and writing.
#pragma once

#include "app/json_lines.h"
#include "app/line_markup.h"
#include "app/line_parts.h"
#include "app/line_words.h"

namespace xlate {

/// Holds what is kept of lines while they are decoded. The tables must outlive the object.
struct LineTables {
  LineFields& fields;  // the objects of lines
  LineParts& parts;    // how many parts or draws lines have
  LineWords& words;    // the words of sources
  LineMarkup& markup;  // lines of HTML
};

}  // namespace xlate
