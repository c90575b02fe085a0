// The promise under test: what people read is aligned, bounded and cannot steer their terminal;
// what is not an answer of the placer is an Error.

#include <sstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/curve_keys.h"
#include "tests/tools/temp_dir.h"
#include "tools/samepage/api_messages.h"
#include "tools/samepage/host_checks.h"
#include "tools/samepage/progress_bar.h"
#include "tools/samepage/quantity.h"
#include "tools/samepage/table.h"

namespace samepage::cli {
namespace {

using samepage::testing::TempDir;
using ::testing::HasSubstr;
using ::testing::Not;
using Verdict = Check::Verdict;

std::string text_of(const Table& table, std::size_t width) {
  std::ostringstream out;
  table.print(out, width);
  return out.str();
}

TEST(TableTest, AlignsColumnsByCharacters) {
  Table table({{"VM"}, {"MEMORY", Table::Align::kRight}, {"WHY"}});
  table.add_row({"webü", "512 MiB", "shares"});
  table.add_row({"a", "3 MiB", ""});

  EXPECT_EQ(text_of(table, 0),
            "VM     MEMORY  WHY\n"
            "webü  512 MiB  shares\n"
            "a       3 MiB  \n");
}

TEST(TableTest, WrapsTheLastColumnAtTheTerminalsEdge) {
  Table table({{"VM"}, {"WHY"}});
  table.add_row({"web3", "shares 212 MiB with web1 on alpha"});

  EXPECT_EQ(text_of(table, 28),
            "VM    WHY\n"
            "web3  shares 212 MiB with\n"
            "      web1 on alpha\n");
}

TEST(TableTest, DoesNotWrapWhereThereIsNoRoom) {
  Table table({{"VM"}, {"WHY"}});
  table.add_row({"a-long-name-of-a-virtual-machine", "shares 212 MiB with web1 on alpha"});

  EXPECT_THAT(text_of(table, 40), HasSubstr("machine  shares 212 MiB with web1 on alpha\n"));
}

TEST(TableTest, CutsAWordThatIsLongerThanTheColumn) {
  Table table({{"A"}, {"B"}});
  table.add_row({"x", std::string(45, 'y')});

  EXPECT_EQ(text_of(table, 23), "A  B\nx  " + std::string(20, 'y') + "\n   " +
                                    std::string(20, 'y') + "\n   " + std::string(5, 'y') + "\n");
}

TEST(TableTest, ShowsControlCharactersAsQuestionMarks) {
  Table table({{"VM"}});
  table.add_row({"web\033[2J\n"});

  EXPECT_EQ(text_of(table, 0), "VM\nweb?[2J?\n");
}

TEST(QuantityTest, ShowsNumbersForPeople) {
  EXPECT_EQ(show_mib(0), "0 MiB");
  EXPECT_EQ(show_mib(3.44), "3.4 MiB");
  EXPECT_EQ(show_mib(9.96), "10 MiB");
  EXPECT_EQ(show_mib(2048.4), "2048 MiB");
  EXPECT_EQ(show_mib({}), "-");
  EXPECT_EQ(show_bytes_as_mib(5.0 * 1024 * 1024), "5.0 MiB");
  EXPECT_EQ(show_mib_change(34), "+34 MiB");
  EXPECT_EQ(show_mib_change(-3.4), "-3.4 MiB");
  EXPECT_EQ(show_mib_range(203, 221), "203-221 MiB");
  EXPECT_EQ(show_mib_range(203, {}), "-");
  EXPECT_EQ(show_count(1234), "1234");
  EXPECT_EQ(show_ms(213.4), "213 ms");
  EXPECT_EQ(show_ms(12'400), "12.4 s");
  EXPECT_EQ(show_age(4), "4 s");
  EXPECT_EQ(show_age(720), "12 min");
  EXPECT_EQ(show_age(10'800), "3 h");
  EXPECT_EQ(show_age(5 * 86'400), "5 d");
  EXPECT_EQ(show_share(11, 212), "5 %");
  EXPECT_EQ(show_share(11, 0), "-");
  EXPECT_EQ(show_share({}, 212), "-");
}

TEST(ProgressBarTest, FillsWithTheFractionAndFitsTheWidth) {
  EXPECT_EQ(progress_line("web3", 0.5, "ram", 28), "web3 [#####-----]  50 %  ram");
  EXPECT_LE(display_width(progress_line("web3", 0.5, "ram, 212 MiB read", 26)), 26U);
  EXPECT_EQ(progress_line("webü", 1, "", 10), "webü 100 %");
  EXPECT_THAT(progress_line("web3", 7, "", 80), HasSubstr("100 %"));
  EXPECT_THAT(progress_line("web3", -1, "", 80), HasSubstr("  0 %"));
  EXPECT_THAT(progress_line("web3", std::numeric_limits<double>::quiet_NaN(), "", 80),
              HasSubstr("  0 %"));
}

TEST(ProgressBarTest, RedrawsOnATerminalBelowItsSentences) {
  std::ostringstream out;
  {
    ProgressBar bar(out, 40);
    bar.show("web3", 0.5, "ram");
    bar.say("web1 moved");
  }
  const std::string line = progress_line("web3", 0.5, "ram", 39);
  EXPECT_EQ(out.str(), "\r\033[K" + line + "\r\033[Kweb1 moved\n" + line + "\r\033[K");
}

TEST(ProgressBarTest, OnlyTalksWhereThereIsNoTerminal) {
  std::ostringstream out;
  ProgressBar bar(out, 0);
  bar.show("web3", 0.5, "ram");
  bar.say("web1\tmoved");

  EXPECT_EQ(out.str(), "web1?moved\n");
}

TEST(ApiMessagesTest, SaysWhatAnAnswerLacks) {
  for (const char* text :
       {"", "<html>", "[]", "{}", R"({"hosts": 7})", R"({"hosts": [{"state": "up"}]})",
        R"({"hosts": [{"name": 7}]})", R"({"hosts": [{"name": "a", "vms": "many"}]})"}) {
    const auto hosts = parse_hosts(text);
    ASSERT_FALSE(hosts) << text;
    EXPECT_EQ(hosts.error().code(), Errc::kCorrupt);
  }
}

TEST(ApiMessagesTest, EveryAnswerOfAnotherShapeIsCorrupt) {
  const char* text = R"({"something": "else"})";
  EXPECT_EQ(parse_host(text).error().code(), Errc::kCorrupt);
  EXPECT_EQ(parse_vms(text).error().code(), Errc::kCorrupt);
  EXPECT_EQ(parse_sharing(text).error().code(), Errc::kCorrupt);
  EXPECT_EQ(parse_plan(text).error().code(), Errc::kCorrupt);
  EXPECT_EQ(parse_plans(text).error().code(), Errc::kCorrupt);
  EXPECT_EQ(parse_event(text).error().code(), Errc::kCorrupt);
  EXPECT_EQ(parse_scan(text).error().code(), Errc::kCorrupt);
}

TEST(ApiMessagesTest, TakesNullAndAbsentForUnknown) {
  const auto hosts =
      parse_hosts(R"({"hosts": [{"name": "a", "state": "never_seen", "memory_mib": null}]})");

  ASSERT_TRUE(hosts);
  EXPECT_EQ(hosts->front().memory_mib, std::nullopt);
  EXPECT_EQ(hosts->front().resident_mib, std::nullopt);
  EXPECT_EQ(hosts->front().hypervisor_version, "");
}

TEST(ApiMessagesTest, RequestBodiesAreJson) {
  EXPECT_EQ(text_object({{"vm", "we\"b"}, {"target", "b"}}), R"({"target":"b","vm":"we\"b"})");
  EXPECT_EQ(number_object("gain_min_mib", 4), R"({"gain_min_mib":4.0})");
}

const Check* find(const std::vector<Check>& checks, const std::string& name) {
  for (const Check& check : checks) {
    if (check.name == name) return &check;
  }
  return nullptr;
}

TEST(HostChecksTest, AsksLibvirtForVersions) {
  // libvirt's test driver lives in this process and calls its hypervisor version 0.0.2.
  const auto checks = check_hypervisor({.libvirt_uri = "test:///default"});

  ASSERT_NE(find(checks, "libvirt"), nullptr);
  EXPECT_EQ(find(checks, "libvirt")->verdict, Verdict::kOk) << find(checks, "libvirt")->found;
  ASSERT_NE(find(checks, "qemu"), nullptr);
  EXPECT_EQ(find(checks, "qemu")->verdict, Verdict::kFail);
  EXPECT_THAT(find(checks, "qemu")->mend, HasSubstr("7.2.0"));
}

TEST(HostChecksTest, SaysWhyLibvirtDoesNotAnswer) {
  const auto checks =
      check_hypervisor({.libvirt_uri = "qemu+unix:///system?socket=/no/such/socket"});

  ASSERT_NE(find(checks, "libvirt"), nullptr);
  EXPECT_EQ(find(checks, "libvirt")->verdict, Verdict::kFail);
  EXPECT_THAT(find(checks, "libvirt")->found, HasSubstr("/no/such/socket"));
}

TEST(HostChecksTest, TellsARunningKsmFromAStoppedAndAMissingOne) {
  const TempDir dir;
  const auto ksm = [&] { return *find(check_kernel({.ksm_folder = dir.file(".")}), "ksm"); };
  EXPECT_EQ(ksm().verdict, Verdict::kFail);

  dir.write("run", "0\n");
  EXPECT_EQ(ksm().verdict, Verdict::kWarn);
  EXPECT_THAT(ksm().mend, HasSubstr("echo 1 > "));

  dir.write("run", "1\n");
  dir.write("pages_sharing", "4711\n");
  EXPECT_EQ(ksm().verdict, Verdict::kOk);
  EXPECT_THAT(ksm().found, HasSubstr("4711"));
}

TEST(HostChecksTest, KnowsGoodKeysFromBadOnes) {
  const TempDir dir;
  const HostPlaces places{.agent_key = dir.file("agent.key"), .placer_key = dir.file("placer.pub")};
  EXPECT_EQ(find(check_keys(places), "agent_key")->verdict, Verdict::kFail);
  EXPECT_EQ(find(check_keys(places), "placer_key")->verdict, Verdict::kFail);

  const auto keys = load_or_make_curve_keys(places.agent_key);
  ASSERT_TRUE(keys);
  dir.write("placer.pub", keys->public_key + "\n");

  EXPECT_EQ(find(check_keys(places), "agent_key")->verdict, Verdict::kOk);
  EXPECT_THAT(find(check_keys(places), "agent_key")->found, HasSubstr(keys->public_key));
  EXPECT_THAT(find(check_keys(places), "agent_key")->found, Not(HasSubstr(keys->secret_key)));
  EXPECT_EQ(find(check_keys(places), "placer_key")->verdict, Verdict::kOk);

  dir.write("placer.pub", "<html>\n");
  EXPECT_EQ(find(check_keys(places), "placer_key")->verdict, Verdict::kFail);
}

TEST(HostChecksTest, EveryVerdictButOkSaysHowToMendIt) {
  for (const Check& check : check_kernel({.page_flags = "/no/such/file"})) {
    EXPECT_EQ(check.verdict == Verdict::kOk, check.mend.empty()) << check.name;
  }
}

}  // namespace
}  // namespace samepage::cli
