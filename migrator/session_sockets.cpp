#include "migrator/session_sockets.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

namespace samepage::migrator {
namespace {

constexpr std::size_t kSessionMax = 64;

bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

Result<void> check_session_name(const std::string& session) {
  const bool sized = !session.empty() && session.size() <= kSessionMax;
  if (sized && std::all_of(session.begin(), session.end(), is_letter_or_digit)) return {};
  return fail(Errc::kInvalid, "a session's name has 1 to 64 letters and digits: '" + session + "'");
}

std::string stream_socket_path(const std::string& socket_dir, const std::string& session) {
  return socket_dir + "/" + session + ".stream";
}

std::string control_socket_path(const std::string& socket_dir, const std::string& session) {
  return socket_dir + "/" + session + ".control";
}

Result<void> make_socket_dir(const std::string& socket_dir) {
  namespace fs = std::filesystem;
  std::error_code error;
  const bool made = fs::create_directories(socket_dir, error);
  if (error) return fail(Errc::kIo, "make " + socket_dir + ": " + error.message());
  if (!made) return {};
  fs::permissions(socket_dir, fs::perms::owner_all | fs::perms::group_exec | fs::perms::others_exec,
                  error);
  if (error) return fail(Errc::kIo, "restrict " + socket_dir + ": " + error.message());
  return {};
}

}  // namespace samepage::migrator
