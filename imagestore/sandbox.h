#pragma once

#include <initializer_list>
#include <string_view>

#include "core/result.h"

namespace samepage::imagestore {

/// Takes from the calling thread, and from every process that it starts, the right to open files
/// for reading or writing, other than what lies below `folders_to_read` and the open file `file`.
/// What is open already stays usable. For the thread's life: there is no way back.
///
/// Returns false, and changes nothing, when the kernel has no Landlock (Linux 5.13).
/// kIo: the kernel refused; the thread may be restricted.
Result<bool> restrict_thread_to(std::initializer_list<std::string_view> folders_to_read, int file);

}  // namespace samepage::imagestore
