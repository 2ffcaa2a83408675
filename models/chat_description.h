// Reads the header's "chat" (docs/model-format.md).
#pragma once

#include "models/section.h"
#include "tokenization/chat.h"

namespace xlate {

/// Reads the section. Throws Error that names the key, what was expected and what was found.
ChatTemplate read_chat(const Section&);

}  // namespace xlate
