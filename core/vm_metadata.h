#pragma once

#include <string>
#include <string_view>

namespace samepage {

/// The XML namespace of our elements in a VM's metadata.
inline constexpr const char* kVmMetadataNamespace = "https://samepage.example/vm/1";

/// Of the one that says which template a VM stands on.
inline constexpr const char* kTemplateMetadataNamespace = "https://samepage.example/template/1";

/// The sharing domain that a <samepage:domain> element names, given as libvirt hands it out, or
/// empty when its text is no name: 1 to 64 letters, digits, '.', '_' or '-'. Empty shares with
/// nobody; a slip in the XML must not put a VM into another tenant's domain.
std::string sharing_domain_in(std::string_view element);

/// The template's id that a <samepage:template> element names, 32 hexadecimal digits, or empty when
/// its text is none.
std::string template_id_in(std::string_view element);

}  // namespace samepage
