//! The arguments of the program, and the help for a start without any.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

use super::{check, completions, demo, explain, health, keygen, keys, man, purge, serve, simulate, webhook, whoami};

/// The output of `postern` without a command.
pub(super) const SHORT_HELP: &str = "\
Postern: an authenticating, caching gateway in front of the Refold executions API

  postern demo                          try it: the gateway in front of a simulated Refold
  postern keygen                        generate a client key and the configuration lines for it
  postern check postern.toml            validate a configuration file
  postern serve --config postern.toml   run the gateway
  postern help                          all commands; `postern help serve` describes one";

/// An authenticating, caching gateway in front of the Refold executions API.
#[derive(Debug, Parser)]
#[command(name = "postern", version, after_help = EXAMPLES)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  postern demo
  postern check postern.toml && postern serve --config postern.toml";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway in front of an embedded simulated Refold, and print the first requests to try.
    Demo(demo::DemoArguments),
    /// Run the gateway with a configuration file.
    Serve(serve::ServeArguments),
    /// Validate a configuration file and report errors with their lines and columns.
    Check(check::CheckArguments),
    /// Show the canonical form of a query, its upstream targets and its cache key.
    Explain(explain::ExplainArguments),
    /// Generate a client key and the configuration lines for it.
    Keygen(keygen::KeygenArguments),
    /// Explain what a credential may do under a configuration, and why. The credential is read from standard input.
    Whoami(whoami::WhoamiArguments),
    /// Print the request that registers the gateway's webhook with Refold.
    Webhook(webhook::WebhookArguments),
    /// Run the simulated Refold alone.
    Simulate(simulate::SimulateArguments),
    /// Check that a running gateway answers, and exit with 0 if it does (for container health checks).
    Health(health::HealthArguments),
    /// List the client keys of a running gateway: linked accounts, expiry, last use, requests and 429s of the last minute, rate.
    Keys(keys::KeysArguments),
    /// Drop cached entries of a running gateway: those of a linked account, of a tenant, or all.
    Purge(purge::PurgeArguments),
    /// Print the JSON Schema of the configuration file, for editors.
    #[command(after_help = "Examples:\n  postern schema > postern.schema.json")]
    Schema,
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArguments),
    /// Print the manual page, or write one page per command.
    Man(man::ManArguments),
    /// Print the version.
    #[command(after_help = "Examples:\n  postern version")]
    Version,
}

/// Advice that follows the message of an error: the new place of an option that once came before all commands.
pub(super) fn advice(error: &clap::Error) -> &'static str {
    let is_of_demo = |value: &ContextValue| {
        let ContextValue::String(argument) = value else { return false };
        ["--listen", "--admin"].iter().any(|option| argument.starts_with(option))
    };
    let has_a_command = std::env::args_os().nth(1).is_some_and(|first| !first.to_string_lossy().starts_with('-'));
    let is_misplaced = error.kind() == ErrorKind::UnknownArgument
        && !has_a_command
        && error.get(ContextKind::InvalidArg).is_some_and(is_of_demo);
    if is_misplaced {
        "\nOptions follow their command; those of the demo are now `postern demo --listen ADDRESS`.\n"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_of_all_arguments_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_help_has_examples_that_parse() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{help}"));
            for line in examples.lines().map(str::trim).filter(|line| !line.is_empty()) {
                let own = line.split("postern ").nth(1).unwrap_or_else(|| panic!("no command: {line}"));
                let end = own.find(['|', '>', '<', '&', '#', ')']).unwrap_or(own.len());
                let words = own[..end].split_whitespace().map(|word| word.trim_matches('\'').trim_matches('"'));
                let parsed = Arguments::try_parse_from(["postern"].into_iter().chain(words));
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
        let mut command = Arguments::command();
        check(&mut command);
        command.get_subcommands_mut().filter(|command| command.get_name() != "help").for_each(check);
    }
}
