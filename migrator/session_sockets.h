#pragma once

#include <string>

#include "core/result.h"

namespace samepage::migrator {

/// kInvalid: not 1 to 64 letters and digits. A session names files, so nothing else may be in it.
Result<void> check_session_name(const std::string& session);

/// The UNIX socket of QEMU's stream; the same path on both hosts, as libvirt wants it.
std::string stream_socket_path(const std::string& socket_dir, const std::string& session);

/// The UNIX socket on the source that leads to the target's libvirt.
std::string control_socket_path(const std::string& socket_dir, const std::string& session);

/// Makes the folder of the sockets where it is missing. kIo: see the message.
Result<void> make_socket_dir(const std::string& socket_dir);

}  // namespace samepage::migrator
