//! The verbs on single tokens: generate, assign, keep-alive, unblock, delete, inspect.

use std::time::Duration;

use clap::Args;

use super::client::{self, AssignRequest, Client, Grant, TokenRequest, TokenState};
use super::error::{EXIT_LEASE_LOST, Failure};
use super::output::{self, Output};
use super::{PoolArg, duration};
use crate::token::{Fence, Holder, IdempotencyKey, Invalid, TOKENS_PER_CALL_MAX, TokenValue};

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// How many: 1 to 10000.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=TOKENS_PER_CALL_MAX as i64))]
    count: u32,
    #[command(flatten)]
    pool: PoolArg,
}

#[derive(Debug, Args)]
pub struct AssignArgs {
    /// A label for who holds it.
    #[arg(long, value_parser = Holder::parse)]
    holder: Option<Holder>,
    /// The lease's length, instead of the pool's.
    #[arg(long, value_name = "DURATION", value_parser = duration::lifetime)]
    lifetime: Option<Duration>,
    /// This token, instead of a random free one.
    #[arg(long, value_parser = TokenValue::parse)]
    token: Option<TokenValue>,
    /// If no token is free, wait so long in line with others who do: up to 60s.
    #[arg(long, value_name = "DURATION", value_parser = duration::wait, conflicts_with = "token")]
    wait: Option<Duration>,
    /// A retry with the same key within 10 minutes finds the same grant.
    #[arg(long, value_name = "KEY", value_parser = IdempotencyKey::parse)]
    idempotency_key: Option<IdempotencyKey>,
    #[command(flatten)]
    pool: PoolArg,
}

#[derive(Debug, Args)]
pub struct KeepAliveArgs {
    /// The token.
    #[arg(value_parser = TokenValue::parse)]
    token: TokenValue,
    /// Only if it is held under this fence.
    #[arg(long, value_name = "N", value_parser = parse_fence)]
    fence: Option<Fence>,
    /// The lease's new length from now, instead of the pool's.
    #[arg(long, value_name = "DURATION", value_parser = duration::lifetime)]
    lifetime: Option<Duration>,
    #[command(flatten)]
    pool: PoolArg,
}

#[derive(Debug, Args)]
pub struct UnblockArgs {
    /// The token.
    #[arg(value_parser = TokenValue::parse)]
    token: TokenValue,
    /// Only if it is held under this fence.
    #[arg(long, value_name = "N", value_parser = parse_fence)]
    fence: Option<Fence>,
    #[command(flatten)]
    pool: PoolArg,
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The token.
    #[arg(value_parser = TokenValue::parse)]
    pub(super) token: TokenValue,
    #[command(flatten)]
    pub(super) pool: PoolArg,
}

fn parse_fence(text: &str) -> Result<Fence, Invalid> {
    // Text that is no number gets the same explanation as 0, which is none either.
    Fence::parse(text.parse().unwrap_or(0))
}

/// # Errors
/// When the service refuses or the output cannot be written; so for all below.
pub async fn generate(client: &Client, output: Output, args: &GenerateArgs) -> Result<(), Failure> {
    let answer = client.generate(&args.pool.name, args.count).await?;
    output.answer(&answer, |added| added.tokens.join("\n"))
}

/// # Errors
/// When the service refuses or the output cannot be written.
pub async fn assign(client: &Client, output: Output, args: AssignArgs) -> Result<(), Failure> {
    let request = AssignRequest {
        holder: args.holder.map(String::from),
        lifetime: args.lifetime.map(duration::seconds),
        token: args.token.map(String::from),
        wait_seconds: args.wait.map(duration::seconds),
    };
    let key = args.idempotency_key.as_ref();
    let answer = client.assign(&args.pool.name, &request, key).await?;
    output.answer(&answer, show_grant)
}

/// # Errors
/// When the token is free, the service refuses, or the output cannot be written.
pub async fn keep_alive(
    client: &Client,
    output: Output,
    args: KeepAliveArgs,
) -> Result<(), Failure> {
    let request = TokenRequest {
        token: args.token.into(),
        fence: args.fence.map(Fence::get),
        lifetime: args.lifetime.map(duration::seconds),
    };
    let answer = client
        .keep_alive(&args.pool.name, &request, client::REQUEST_TIMEOUT)
        .await
        .map_err(|error| Failure {
            code: if error.says_lost() {
                EXIT_LEASE_LOST
            } else {
                error.exit_code()
            },
            ..error.into()
        })?;
    output.answer(&answer, show_state)?;
    match answer.value.lease() {
        Some(_) => Ok(()),
        None => Err(Failure {
            message: format!(
                "the lease is lost: the token is {} and nobody holds it; only its idle clock was restarted",
                output::one_line(&answer.value.state)
            ),
            code: EXIT_LEASE_LOST,
        }),
    }
}

/// # Errors
/// When the service refuses or the output cannot be written.
pub async fn unblock(client: &Client, output: Output, args: UnblockArgs) -> Result<(), Failure> {
    let request = TokenRequest {
        fence: args.fence.map(Fence::get),
        ..TokenRequest::plain(args.token)
    };
    let answer = client.unblock(&args.pool.name, &request).await?;
    output.answer(&answer, show_state)
}

/// # Errors
/// When the service refuses or the output cannot be written.
pub async fn delete(client: &Client, output: Output, args: TokenArgs) -> Result<(), Failure> {
    let request = TokenRequest::plain(args.token);
    let answer = client.delete(&args.pool.name, &request).await?;
    output.answer(&answer, show_state)
}

/// # Errors
/// When the service refuses or the output cannot be written.
pub async fn inspect(client: &Client, output: Output, args: TokenArgs) -> Result<(), Failure> {
    let request = TokenRequest::plain(args.token);
    let answer = client.inspect(&args.pool.name, &request).await?;
    output.answer(&answer, show_state)
}

fn remaining(seconds: f64) -> String {
    duration::human(duration::from_seconds(seconds))
}

fn show_grant(grant: &Grant) -> String {
    let mut rows = vec![
        ("token", grant.token.clone()),
        ("fence", grant.fence.to_string()),
        ("expires at", grant.expires_at.clone()),
        ("expires in", remaining(grant.expires_in)),
    ];
    rows.extend(grant.holder.clone().map(|holder| ("holder", holder)));
    output::block(&rows)
}

/// The state, and of the rest what the answer has.
fn show_state(state: &TokenState) -> String {
    let mut rows = vec![
        ("token", state.token.clone()),
        ("state", state.state.clone()),
    ];
    let optional = [
        // 0 stands for "never granted".
        (
            "fence",
            state.fence.filter(|f| *f > 0).map(|f| f.to_string()),
        ),
        ("holder", state.holder.clone()),
        ("granted at", state.granted_at.clone()),
        ("expires at", state.expires_at.clone()),
        ("expires in", state.expires_in.map(remaining)),
        ("idle expires at", state.idle_expires_at.clone()),
        ("available at", state.available_at.clone()),
    ];
    rows.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    output::block(&rows)
}
