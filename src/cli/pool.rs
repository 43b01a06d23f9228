//! `tokend pool`: list, show, set and delete pools.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::{Client, PolicyFields, Pool};
use super::duration;
use super::error::Failure;
use super::output::{self, Output};
use crate::token::{Policy, PoolName};

#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// List all pools with their counts and policy.
    List,
    /// Show one pool.
    Show {
        /// The pool's name.
        #[arg(value_parser = PoolName::parse)]
        name: PoolName,
    },
    /// Create a pool, or change the fields given; the others keep their value.
    Set(SetArgs),
    /// Delete a pool and all its tokens.
    Delete {
        /// The pool's name.
        #[arg(value_parser = PoolName::parse)]
        name: PoolName,
    },
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// The pool's name: a-z, 0-9 and -, at most 63 characters.
    #[arg(value_parser = PoolName::parse)]
    name: PoolName,
    /// A lease lapses after this, unless kept alive (a new pool: 60s).
    #[arg(long, value_name = "DURATION", value_parser = duration::lifetime)]
    lifetime: Option<Duration>,
    /// A free token that nobody kept alive for this long is deleted; 0 = never (a new pool: 0).
    #[arg(long, value_name = "DURATION", value_parser = duration::limit)]
    idle_limit: Option<Duration>,
    /// A token that left its holder is assignable again after this; 0 = at once (a new pool: 0).
    #[arg(long, value_name = "DURATION", value_parser = duration::limit)]
    cooldown: Option<Duration>,
    /// Most tokens that the pool may hold, over all states (a new pool: 10000).
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..=Policy::MAX_TOKENS_MAX)
    )]
    max_tokens: Option<u64>,
    /// Keep-alive never extends a lease past this since its grant; 0 = no limit (a new pool: 0).
    #[arg(long, value_name = "DURATION", value_parser = duration::limit)]
    max_hold: Option<Duration>,
    /// What becomes of a token whose lease lapsed (a new pool: recycle).
    #[arg(long, value_parser = ["recycle", "delete"])]
    on_lapse: Option<String>,
    /// Over how many partitions a new pool is spread, for more than one Redis core can do; fixed from then on (a new
    /// pool: 1).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,
}

/// Runs one `tokend pool` command.
///
/// # Errors
/// When the service refuses or the output cannot be written.
pub async fn run(client: &Client, output: Output, command: PoolCommand) -> Result<(), Failure> {
    match command {
        PoolCommand::List => {
            let answer = client.list_pools().await?;
            output.answer(&answer, |pools| list(&pools.pools))
        }
        PoolCommand::Show { name } => {
            let answer = client.show_pool(&name).await?;
            output.answer(&answer, show)
        }
        PoolCommand::Set(args) => {
            let (name, fields) = fields(args);
            let answer = client.put_pool(&name, &fields).await?;
            output.answer(&answer, show)
        }
        PoolCommand::Delete { name } => {
            client.delete_pool(&name).await?;
            if output.json {
                return Ok(()); // The answer is a 204: there is no JSON to print.
            }
            output::print(&format!("deleted {name}"))
        }
    }
}

fn fields(args: SetArgs) -> (PoolName, PolicyFields) {
    let fields = PolicyFields {
        lifetime: args.lifetime.map(duration::seconds),
        idle_limit: args.idle_limit.map(duration::seconds),
        cooldown: args.cooldown.map(duration::seconds),
        max_tokens: args.max_tokens,
        max_hold: args.max_hold.map(duration::seconds),
        on_lapse: args.on_lapse,
        shards: args.shards,
    };
    (args.name, fields)
}

/// A policy's duration for people; 0 is what its field calls it.
fn told(seconds: f64, zero: &str) -> String {
    match duration::from_seconds(seconds) {
        Duration::ZERO => zero.to_owned(),
        length => duration::human(length),
    }
}

fn list(pools: &[Pool]) -> String {
    let head = [
        "NAME", "FREE", "HELD", "COOLING", "TOTAL", "MAX", "LIFETIME", "COOLDOWN",
    ];
    let rows: Vec<Vec<String>> = pools
        .iter()
        .map(|pool| {
            vec![
                output::one_line(&pool.name),
                pool.free.to_string(),
                pool.held.to_string(),
                pool.cooling.to_string(),
                pool.total.to_string(),
                pool.max_tokens.to_string(),
                told(pool.lifetime, "0s"),
                told(pool.cooldown, "none"),
            ]
        })
        .collect();
    output::table(&head, &rows)
}

fn show(pool: &Pool) -> String {
    output::block(&[
        ("name", pool.name.clone()),
        ("free", pool.free.to_string()),
        ("held", pool.held.to_string()),
        ("cooling", pool.cooling.to_string()),
        ("total", format!("{} of {}", pool.total, pool.max_tokens)),
        ("lifetime", told(pool.lifetime, "0s")),
        ("idle limit", told(pool.idle_limit, "never")),
        ("cooldown", told(pool.cooldown, "none")),
        ("max hold", told(pool.max_hold, "no limit")),
        ("on lapse", pool.on_lapse.clone()),
        ("shards", pool.shards.to_string()),
    ])
}
