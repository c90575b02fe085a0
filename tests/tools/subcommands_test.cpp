// The promise under test: what all subcommands of the real program have in common: JSON, names for
// scripts, errors, exit codes, configuration and the token.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/tools/scripted_placer.h"

namespace samepage::cli {
namespace {

using ::testing::HasSubstr;

TEST_F(SubcommandsTest, JsonIsThePlacersOwn) {
  answer("GET /hosts", kHosts);
  answer("GET /vms", kVms);
  answer("GET /sharing", R"({"hosts":[],"pairs":[],"new_key":1})");

  EXPECT_EQ(samepage({"hosts", "--json"}).out, std::string(kHosts) + "\n");
  EXPECT_EQ(samepage({"--json", "vms"}).out, std::string(kVms) + "\n");
  EXPECT_EQ(samepage({"sharing", "--json"}).out, "{\"hosts\":[],\"pairs\":[],\"new_key\":1}\n");
}

TEST_F(SubcommandsTest, NamesAreOneALineForScripts) {
  answer("GET /hosts", kHosts);
  answer("GET /vms", kVms);

  EXPECT_EQ(samepage({"hosts", "--names"}).out, "alpha\nbeta\n");
  EXPECT_EQ(samepage({"vms", "--names"}).out, "web3\ndb1\n");
}

TEST_F(SubcommandsTest, ThePlacersSentenceIsPassedOn) {
  refuse("DELETE /hosts/NAME",
         http::error_response(Error(Errc::kNotFound, "no host named gamma; `samepage hosts`")));
  refuse("POST /migrations",
         http::error_response(Error(Errc::kNotFound, "no VM named web9; `samepage vms`")));
  refuse("GET /plans/ID", http::error_response(Error(Errc::kNotFound, "no plan 7")));

  const Output host = samepage({"hosts", "forget", "gamma"});
  const Output vm = samepage({"migrate", "web9", "--to", "beta"});
  const Output plan = samepage({"plan", "show", "7"});

  EXPECT_EQ(host.exit_code, 1);
  EXPECT_EQ(host.err, "samepage: no host named gamma; `samepage hosts`\n");
  EXPECT_EQ(vm.exit_code, 1);
  EXPECT_EQ(vm.err, "samepage: no VM named web9; `samepage vms`\n");
  EXPECT_EQ(plan.exit_code, 1);
  EXPECT_EQ(plan.err, "samepage: no plan 7\n");
}

TEST_F(SubcommandsTest, WrongUsageIsExitCodeTwo) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{},
                                             {"bogus"},
                                             {"hosts", "--bogus"},
                                             {"migrate", "web3"},
                                             {"migrate", "--to", "beta"},
                                             {"plan", "--gain-min", "-1"},
                                             {"completion"},
                                             {"--url", "http://x", "--socket", "y", "hosts"}}) {
    const Output output = samepage(arguments);
    EXPECT_EQ(output.exit_code, 2) << ::testing::PrintToString(arguments);
    EXPECT_EQ(output.out, "");
    EXPECT_NE(output.err, "");
  }
}

TEST_F(SubcommandsTest, TheConfigurationFileIsReadAndItsTyposRefused) {
  answer("GET /hosts", kHosts);
  start();
  const std::string good = dir_.write("good.toml", "socket = \"" + socket_ + "\"\njson = true\n");
  const std::string bad = dir_.write("bad.toml", "sokcet = \"x\"\n");

  const Output read = testing::run(command({"--config", good, "hosts"}));
  const Output refused = testing::run(command({"--config", bad, "hosts"}));

  EXPECT_EQ(read.exit_code, 0) << read.err;
  EXPECT_EQ(read.out, std::string(kHosts) + "\n");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("sokcet"));
}

TEST_F(SubcommandsTest, OverTcpTheTokenComesFromItsFile) {
  answer("GET /hosts", kHosts);
  const std::string token = "0123456789abcdef";
  const auto server =
      http::HttpServer::create({.tcp_address = "127.0.0.1:0", .token = token}, routes_);
  ASSERT_TRUE(server) << server.error().message();
  const std::string url = "http://" + (*server)->address();
  const std::string file = dir_.write("token", token + "\n");

  const Output open =
      testing::run(command({"hosts", "--names", "--url", url, "--token-file", file}));
  const Output closed = testing::run(command({"hosts", "--url", url}));
  const Output absent =
      testing::run(command({"hosts", "--url", url, "--token-file", dir_.file("none")}));

  EXPECT_EQ(open.exit_code, 0) << open.err;
  EXPECT_EQ(open.out, "alpha\nbeta\n");
  EXPECT_EQ(closed.exit_code, 1);
  EXPECT_THAT(closed.err, HasSubstr("token"));
  EXPECT_EQ(absent.exit_code, 1);
}

}  // namespace
}  // namespace samepage::cli
