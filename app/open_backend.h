// Opens the devices of a run.
#pragma once

#include <memory>

#include "app/console.h"
#include "app/options.h"
#include "engine/backend.h"
#include "models/description.h"

namespace xlate {

/// Opens the backend of the device that --device names. With auto, it is the first GPU, or the CPU
/// if that GPU cannot be used, which a note then says. Throws Error if the device cannot be used,
/// and UsageError for a precision that the CPU does not have.
std::unique_ptr<Backend> open_backend(const Options&, const NetworkDescription&, Console&);

/// Opens the same GPU once more, in float32 and with the memory that the first backend has left.
/// Throws Error as open_backend() does.
std::unique_ptr<Backend> open_float32_beside(const Backend& first, const Options&);

}  // namespace xlate
