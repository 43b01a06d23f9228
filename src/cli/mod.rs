//! The command line: everything that `tokend` does besides serving.
//!
//! Reading order: this file (what the commands are), [`client`] (the HTTP contract as Rust),
//! [`error`] (exit codes), then a file per concern. `lease` is the one with moving parts.
//!
//! **Architecture Invariant:** nothing here knows the store. The command line is a client of the
//! HTTP contract like any other, so whatever it can do, every other client can.

mod address;
pub mod client;
pub(crate) mod duration;
pub mod error;
mod import;
mod lease;
pub(crate) mod output;
mod pool;
mod tokens;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use reqwest::Url;

use self::client::{Client, ServiceUrl};
use self::error::Failure;
use self::output::Output;
use crate::auth::user::UserName;
use crate::token::PoolName;

/// Hands out scarce tokens, each to at most one holder at a time, and takes them back.
#[derive(Debug, Parser)]
#[command(name = "tokend", version = crate::version::version(), after_help = EXIT_CODES)]
pub struct Cli {
    /// Where the service listens.
    // Its value may carry a password, so help does not repeat it. Whether it is an address is only asked where it matters:
    // the environment has it for other commands too.
    #[arg(
        long,
        global = true,
        env = "TOKEND_URL",
        hide_env_values = true,
        display_order = 100,
        default_value = URL,
        value_parser = OsStringValueParser::new().map(ServiceUrl)
    )]
    pub url: ServiceUrl,
    /// Print JSON, as one line.
    #[arg(long, global = true, display_order = 101)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Where a service listens that was started with nothing.
const URL: &str = "http://127.0.0.1:3000";

/// The table that `--help` ends with; the numbers are the constants of [`error`].
const EXIT_CODES: &str = "\
Durations: 90s, 2m, 1h, 1h 30m, or plain seconds (fractions allowed).

Exit codes:
  0    done
  1    the service refused (any 4xx not listed here), or the output could not be written
  2    usage: bad arguments, or an input file that cannot be used
  69   the service is unreachable, or answered with a 5xx
  75   no token is available, or the one asked for is not free; try again later
  76   the lease is lost
  `tokend lease` otherwise exits with COMMAND's own code: 128+n when signal n ended it,
  126 when it is not executable, 127 when it was not found";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service.
    Serve(ServeArgs),
    /// Add, change, delete, list or import the users of `POST /auth/login`, right in Redis.
    #[command(subcommand, after_help = USER_HELP)]
    User(UserCommand),
    /// Look whether the Redis behind the service can keep what the service promises.
    #[command(after_help = DOCTOR_HELP)]
    Doctor,
    /// Ask the service on this machine whether it is ready, by the HOST and PORT that it reads.
    #[command(after_help = HEALTHCHECK_HELP)]
    Healthcheck(HealthcheckArgs),
    #[command(flatten)]
    Client(ClientCommand),
}

const DOCTOR_HELP: &str = "\
Reads the configuration that `tokend serve` reads, asks Redis itself, and changes nothing. Below what could
be better stands the line that mends it.

Exit codes: 0 all is well, or warnings only; 1 something failed; 2 the configuration is wrong;
69 Redis does not answer, or lets nobody in.";

const HEALTHCHECK_HELP: &str = "\
Reads the configuration that `tokend serve` reads, and asks /readyz there; where HOST means all addresses,
on the loopback one. For the HEALTHCHECK of a container, which has no shell.

Exit codes: 0 it says so; 1 it does not, or gives no answer within 2 s: one line tells why.";

const USER_HELP: &str = "\
Reads the configuration that `tokend serve` reads: REDIS_URL, or, without it, DATA_DIR, on which
a `tokend serve` of the same user must be running.

Passwords are asked for on a terminal, else read from one line of stdin; they are never arguments.
A new password, and deleting a user, ends all sessions of that user.";

/// Users have no HTTP interface: whoever can reach Redis decides who may log in.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Add a user, with a password of at least 8 characters.
    Add(UserArgs),
    /// Set a user's password; all sessions of that user end.
    Passwd(UserArgs),
    /// Delete a user; all sessions of that user end.
    Delete(UserArgs),
    /// List the users, one name per line.
    List,
    /// Add users from an htpasswd file with bcrypt hashes (htpasswd -B): all of them, or none; see --only-bcrypt.
    Import(UserImportArgs),
}

#[derive(Debug, Args)]
pub struct UserArgs {
    /// The user's name: 1 to 128 bytes, no colon and no invisible character. How it is spelt (NFC, NFD) is all one.
    #[arg(value_parser = UserName::parse)]
    pub name: UserName,
}

#[derive(Debug, Args)]
pub struct UserImportArgs {
    /// The file, with a line `name:$2y$…` for each user, or - for stdin. `name:hash:comment` is good too.
    #[arg(value_name = "HTPASSWD")]
    pub file: PathBuf,
    /// Take the lines that can be taken, and name the others; without this option any of those refuses the file.
    #[arg(long)]
    pub only_bcrypt: bool,
    /// Overwrite users that are there already; their sessions end.
    #[arg(long)]
    pub replace: bool,
}

/// What a client of a running service can do.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// List, show, create, change or delete pools.
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Add new random tokens to a pool and print them, one per line.
    Generate(tokens::GenerateArgs),
    /// Add your own tokens to a pool, one per line of a file.
    Import(import::ImportArgs),
    /// Lease a token: a random free one, or the one named.
    Assign(tokens::AssignArgs),
    /// Extend a lease. Exits with 76 where the token is free: its idle clock restarts, but the lease is lost.
    KeepAlive(tokens::KeepAliveArgs),
    /// Give a token back.
    Unblock(tokens::UnblockArgs),
    /// Delete a token, whatever its state.
    Delete(tokens::TokenArgs),
    /// Show where a token stands.
    Inspect(tokens::TokenArgs),
    /// Run a command for as long as it holds a token.
    #[command(after_help = lease::HELP)]
    Lease(lease::LeaseArgs),
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Port to listen on; wins over the environment's PORT.
    #[arg(short, long)]
    pub port: Option<u16>,
    /// Offer HEAD /dump, which logs the metadata of the one-time tokens; as the environment's DUMP=true.
    #[arg(short, long)]
    pub dump: bool,
    /// How long a one-time token lives, 30min to 96h; wins over the environment's ONE_TIME_LIFETIME.
    #[arg(short, long, value_name = "DURATION", value_parser = crate::config::one_time_lifetime)]
    pub token_lifetime: Option<Duration>,
    /// Accepted and not needed: expired tokens leave by themselves. 1s to 90min.
    #[arg(short = 'P', long, value_name = "DURATION", value_parser = duration::purge_interval)]
    pub purge_interval: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// Ask /livez, whether it is alive: that does not depend on Redis.
    #[arg(long)]
    pub live: bool,
    /// Port that it listens on; wins over the environment's PORT.
    #[arg(short, long)]
    pub port: Option<u16>,
}

/// The pool that a verb acts on.
#[derive(Debug, Args)]
pub struct PoolArg {
    /// The pool to act on.
    #[arg(
        long = "pool",
        env = "TOKEND_POOL",
        hide_env_values = true,
        value_name = "NAME",
        default_value = crate::token::DEFAULT_POOL,
        value_parser = PoolName::parse
    )]
    pub name: PoolName,
}

/// Reads the command line. Where that is all, for it asks for help or can't be read, ends the process.
#[must_use]
pub fn parse() -> Cli {
    read(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    let given = matches.value_source("url") == Some(ValueSource::CommandLine);
    if !given && cli.url.0.is_empty() {
        cli.url = ServiceUrl(URL.into()); // an empty variable is one that is not set
    }
    match cli.command {
        Command::Client(_) => Ok(cli),
        // From the environment it may be there for other commands.
        _ if !given => Ok(cli),
        _ => Err(Cli::command().error(
            ErrorKind::ArgumentConflict,
            "--url is for commands that ask a running service by HTTP; this one reads the configuration that \
             `tokend serve` reads",
        )),
    }
}

/// Runs one command to its end and says how it went.
///
/// Call it from the main thread: `lease` asks the kernel to end COMMAND when the thread that
/// started it dies, and the runtime below starts it from the calling thread.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(args) => crate::serve::run(&args),
        Command::User(command) => crate::users::run(&command, cli.json),
        Command::Doctor => crate::doctor::run(cli.json),
        Command::Healthcheck(args) => crate::healthcheck::run(&args, cli.json),
        Command::Client(command) => match cli.url.parse() {
            Ok(url) => run_client(url, cli.json, command),
            Err(why) => Failure::usage(format!("--url or TOKEND_URL: {why}")).report(),
        },
    }
}

fn run_client(url: Url, json: bool, command: ClientCommand) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return Failure::io("cannot start", &error).report(),
    };
    let ended = runtime.block_on(dispatch(url, json, command));
    // A name look-up that hangs sits in a thread of its own; do not wait for it.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

async fn dispatch(url: Url, json: bool, command: ClientCommand) -> Result<ExitCode, Failure> {
    let client = Client::new(url)?;
    let output = Output { json };
    match command {
        ClientCommand::Pool(command) => pool::run(&client, output, command).await?,
        ClientCommand::Generate(args) => tokens::generate(&client, output, &args).await?,
        ClientCommand::Import(args) => import::run(&client, output, &args).await?,
        ClientCommand::Assign(args) => tokens::assign(&client, output, args).await?,
        ClientCommand::KeepAlive(args) => tokens::keep_alive(&client, output, args).await?,
        ClientCommand::Unblock(args) => tokens::unblock(&client, output, args).await?,
        ClientCommand::Delete(args) => tokens::delete(&client, output, args).await?,
        ClientCommand::Inspect(args) => tokens::inspect(&client, output, args).await?,
        ClientCommand::Lease(args) => return lease::run(client, args).await,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_commands_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_pool_comes_from_the_flag_and_a_bad_name_is_a_usage_error() {
        let cli = Cli::try_parse_from(["tokend", "inspect", "--pool", "seats", "a"]).unwrap();
        let Command::Client(ClientCommand::Inspect(args)) = cli.command else {
            panic!("not inspect")
        };
        assert_eq!(args.pool.name.as_str(), "seats");
        let error = Cli::try_parse_from(["tokend", "inspect", "--pool", "_one_time", "a"])
            .expect_err("flows' pools are out of reach");
        assert_eq!(error.exit_code(), i32::from(error::EXIT_USAGE));
    }

    #[test]
    fn an_address_is_refused_where_it_would_not_be_asked() {
        let read = |line: &str| read(line.split(' ').map(OsString::from));
        for line in [
            "tokend --url http://a:1 healthcheck",
            "tokend healthcheck --url http://a:1",
            "tokend doctor --url http://a:1",
            "tokend user list --url http://a:1",
            "tokend serve --url http://a:1",
        ] {
            let error = read(line).expect_err(line);
            assert_eq!(error.exit_code(), i32::from(error::EXIT_USAGE), "{line}");
        }
        for line in [
            "tokend healthcheck",
            "tokend --url http://a:1 pool list",
            "tokend pool list --url http://a:1",
        ] {
            assert!(read(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn the_lifetime_and_the_interval_of_serve_have_their_ranges() {
        let serve = |flag, value| Cli::try_parse_from(["tokend", "serve", flag, value]);
        for (flag, good, bad) in [
            (
                "-t",
                ["30min", "90min", "2h", "96h"],
                ["29min", "97h", "2", "soon"],
            ),
            (
                "--token-lifetime",
                ["1800", "1d", "4days", "1h 30m"],
                ["", "0", "-2h", "5d"],
            ),
            (
                "-P",
                ["1s", "1", "90min", "1h 30m"],
                ["0.9", "91min", "0", "soon"],
            ),
            (
                "--purge-interval",
                ["5400", "60s", "1.5", "1h"],
                ["", "-1", "5401", "2h"],
            ),
        ] {
            for value in good {
                assert!(serve(flag, value).is_ok(), "{flag} {value}");
            }
            for value in bad {
                let error = serve(flag, value).expect_err(value);
                assert_eq!(
                    error.exit_code(),
                    i32::from(error::EXIT_USAGE),
                    "{flag} {value}"
                );
            }
        }
    }

    #[test]
    fn lease_takes_everything_after_the_dashes_as_the_command() {
        let cli =
            Cli::try_parse_from(["tokend", "lease", "seats", "--", "make", "--json"]).unwrap();
        assert!(!cli.json);
        assert!(Cli::try_parse_from(["tokend", "lease", "seats"]).is_err());
    }

    #[test]
    fn the_table_of_exit_codes_names_every_code() {
        for code in [
            error::EXIT_REFUSED,
            error::EXIT_USAGE,
            error::EXIT_UNAVAILABLE,
            error::EXIT_TRY_LATER,
            error::EXIT_LEASE_LOST,
        ] {
            assert!(EXIT_CODES.contains(&format!("\n  {code:<5}")), "{code}");
        }
    }
}
