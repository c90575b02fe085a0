#include <sstream>

#include <CLI/CLI.hpp>

#include "tools/samepage/subcommands.h"

// The script is made from the very options that the program parses, so the two cannot differ. It
// holds, for each subcommand, the words that can follow; names of hosts, VMs, plans and
// images are asked for at the moment of completion.

namespace samepage::cli {
namespace {

// A path is "" for the program and " plan show" for a subcommand. _samepage_values knows the kind
// of value that an option ("PATH --to") or the Nth argument ("PATH 0") takes.
constexpr const char* kFrame = R"sh(# bash completion for samepage; see samepage(1).
_samepage_ask() {
  local args=() store=() i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --socket|--url|--token-file|--config) args+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}") ;;
      --store|--origin|--ceph-conf) store+=("${COMP_WORDS[i]}" "${COMP_WORDS[i + 1]}") ;;
    esac
  done
  [ "$1" = image ] || store=()
  "${COMP_WORDS[0]}" "${args[@]}" "$@" "${store[@]}" 2>/dev/null
}

_samepage_words() {
  case $1 in
@WORDS@  esac
}

_samepage_values() {
  case $1 in
@VALUES@  esac
}

_samepage_names() {
  case $1 in
    HOST) _samepage_ask hosts --names ;;
    VM) _samepage_ask vms --names ;;
    TEMPLATE) _samepage_ask template list --names ;;
    PLAN-ID) _samepage_ask plan list --ids ;;
    IMAGE) _samepage_ask image list --names ;;
  esac
}

_samepage() {
  local cur=${COMP_WORDS[COMP_CWORD]} path='' given=0 kind='' i word
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    kind=
    if [[ $word == -* ]]; then
      kind=$(_samepage_values "$path $word")
      [ -z "$kind" ] || ((++i))
    elif [[ " $(_samepage_words "$path") " == *" $word "* ]]; then
      path="$path $word" given=0
    else
      ((++given))
    fi
  done
  ((i == COMP_CWORD)) && kind=
  [ -n "$kind" ] || [[ $cur == -* ]] || kind=$(_samepage_values "$path $given")
  COMPREPLY=()
  if [ "$kind" = FILE ]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$cur")
  elif ((i > COMP_CWORD)); then
    mapfile -t COMPREPLY < <(compgen -W "$(_samepage_names "$kind")" -- "$cur")
  else
    mapfile -t COMPREPLY < <(compgen -W "$(_samepage_words "$path")
      $(_samepage_names "$kind")" -- "$cur")
  fi
}

complete -F _samepage samepage
)sh";

struct Script {
  std::string words;
  std::string values;
};

/// One case of a bash `case`. All texts are this program's own names: nothing needs quoting.
void add_case(std::string& cases, const std::string& pattern, const std::string& answer) {
  cases += "    " + pattern + ") echo '" + answer + "' ;;\n";
}

/// Where `app`'s options are known: `path` itself, or with `glob` "*" every path that ends so.
/// Returns the options' names.
std::string describe_options(const CLI::App& app, const std::string& glob, const std::string& path,
                             Script& script) {
  std::string words;
  int argument = 0;
  const auto add_value = [&](const std::string& name, const CLI::Option& option) {
    add_case(script.values, glob + "'" + path + " " + name + "'", option.get_type_name());
  };
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      // One that may be repeated takes all arguments from its place on.
      const bool repeats = option->get_expected_max() > 1;
      const std::string number = repeats ? "'[0-9]*'" : std::to_string(argument);
      add_value(number, *option);
      ++argument;
    }
    for (const std::string& name : option->get_lnames()) {
      if (name == "help") continue;  // Help is not what one completes.
      words += " --" + name;
      if (option->get_expected_max() != 0) add_value("--" + name, *option);
    }
  }
  return words;
}

std::string subcommand_names(const CLI::App& app) {
  std::string words;
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    words += " " + child->get_name();
  }
  return words;
}

/// The subcommands below `app`; the program's own options may follow any of them.
void describe_below(const CLI::App& app, const std::string& path, const std::string& global_words,
                    Script& script) {
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    const std::string child_path = path + " " + child->get_name();
    std::string words = subcommand_names(*child);
    words += describe_options(*child, "", child_path, script) + global_words;
    add_case(script.words, "'" + child_path + "'", words);
    describe_below(*child, child_path, global_words, script);
  }
}

std::string bash_script(const CLI::App& root) {
  Script script;
  const std::string global_words = describe_options(root, "*", "", script);
  add_case(script.words, "''", subcommand_names(root) + global_words);
  describe_below(root, "", global_words, script);

  std::string text = kFrame;
  for (const auto& [mark, cases] :
       {std::pair("@WORDS@", &script.words), std::pair("@VALUES@", &script.values)}) {
    text.replace(text.find(mark), std::string_view(mark).size(), *cases);
  }
  return text;
}

}  // namespace

void add_completion(CLI::App& root, Subcommands& subcommands) {
  CLI::App& completion = subcommands.add(root, "completion", "Print a shell's completion script",
                                         [](Session&) { return Result<void>(); });
  completion.require_subcommand(1);
  subcommands.add(completion, "bash", "For bash: subcommands, options, and names from the placer",
                  [&root](Session& session) -> Result<void> {
                    session.out << bash_script(root);
                    return {};
                  });
}

}  // namespace samepage::cli
