// The promise under test: only a clean name in a VM's metadata joins it to a sharing domain.

#include "core/vm_metadata.h"

#include <gtest/gtest.h>

namespace samepage {
namespace {

TEST(VmMetadataTest, TakesACleanName) {
  EXPECT_EQ(sharing_domain_in("<domain>tenant7</domain>"), "tenant7");
  EXPECT_EQ(sharing_domain_in("<s:domain xmlns:s='https://x/1'>\n  a.b_c-9\n</s:domain>"),
            "a.b_c-9");
  EXPECT_EQ(sharing_domain_in("<domain>" + std::string(64, 'a') + "</domain>"),
            std::string(64, 'a'));
}

TEST(VmMetadataTest, TakesNothingElse) {
  for (const char* element :
       {"", "tenant7", "<domain", "<domain>", "<domain/>", "<domain></domain>",
        "<domain>  </domain>", "<domain>a b</domain>", "<domain>a&amp;b</domain>",
        "<domain><b>a</b></domain>", "<domain>\xc3\xa4</domain>", "<domain>tenant7"}) {
    EXPECT_EQ(sharing_domain_in(element), "") << element;
  }
  EXPECT_EQ(sharing_domain_in("<domain>" + std::string(65, 'a') + "</domain>"), "");
}

TEST(VmMetadataTest, TakesATemplatesId) {
  const std::string id = "0123456789abcdef0123456789abcdef";
  EXPECT_EQ(template_id_in("<t:template xmlns:t='https://x/1'>" + id + "</t:template>"), id);
  for (const std::string& other :
       {id + "0", id.substr(1), "ABCDEF" + id.substr(6), std::string()}) {
    EXPECT_EQ(template_id_in("<template>" + other + "</template>"), "") << other;
  }
}

}  // namespace
}  // namespace samepage
