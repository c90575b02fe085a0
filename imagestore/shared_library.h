#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include <dlfcn.h>

namespace samepage::imagestore {

/// A shared library that is loaded when it is needed, so that programs start where it is not
/// installed; never unloaded, for its threads go on.
/// Threads: one at a time.
class SharedLibrary {
 public:
  explicit SharedLibrary(std::string name)
      : name_(std::move(name)), handle_(::dlopen(name_.c_str(), RTLD_NOW | RTLD_LOCAL)) {}

  bool is_loaded() const { return handle_ != nullptr; }

  /// Looks a function up by its name.
  template <class Function>
  void find(Function& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<Function>>(::dlsym(handle_, name));
    if (function == nullptr) lacks_ = name_ + " lacks " + name;
  }

  /// Empty when all functions were found.
  const std::string& lacks() const { return lacks_; }

 private:
  std::string name_;
  void* handle_;
  std::string lacks_;
};

}  // namespace samepage::imagestore
