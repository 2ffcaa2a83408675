// Says what is wrong with a command line, in place of CLI11's own words where these are unclear.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace xlate {

/// Returns the message, in one line, for an error that parsing the command line has thrown.
std::string message_of(const CLI::App& app, const CLI::ParseError& error);

}  // namespace xlate
