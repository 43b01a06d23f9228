//! `tokend lease POOL -- COMMAND`: COMMAND runs only while it holds a token.
//!
//! Reading order: this file (the course of events), [`timing`] (when to renew, give up and use
//! force: no I/O), [`acquire`] (getting the lease), [`hold`] (the loop that keeps it while COMMAND
//! runs), [`process`] (COMMAND itself and its signals), [`clock`].

mod acquire;
mod clock;
mod hold;
mod process;
mod timing;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::acquire::{Acquired, Outcome, PARTING_MAX};
use self::clock::Moment;
use self::hold::Ended;
use self::process::{Running, SignalStream};
use self::timing::Timing;
use super::client::{AssignRequest, Client, TokenRequest};
use super::error::{CallError, EXIT_LEASE_LOST, Failure};
use super::{duration, output};
use crate::token::{Holder, PoolName, TokenValue};

/// What `tokend lease --help` ends with.
pub const HELP: &str = "\
COMMAND finds the token in TOKEND_TOKEN, the number of its grant in TOKEND_FENCE and the pool in
TOKEND_POOL. The lease is kept alive while COMMAND runs and given back when it ends.

A signal while it waits for a token ends it at once, with 128+n; a grant made in that moment is given back. Where the
service does not answer, that takes 2 s, or until a second signal.

SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to COMMAND. In the foreground
of a terminal SIGINT and SIGQUIT are not: a typed ^C reaches COMMAND from the terminal itself.

The lease is lost when the service says so, or when it could not be confirmed in time. COMMAND then
gets SIGTERM (at most 5s, or a third of the lease, before the lease ends) and, if it is still there
just before the lease ends, SIGKILL. Without a terminal this goes to COMMAND's whole process group;
with one, to COMMAND alone.

Exit codes: COMMAND's own; 128+n when signal n ended it; 126 not executable; 127 not found;
69 service unreachable; 75 no token available; 76 lease lost; 1 and 2 as for every command.";

/// How often giving back is tried before the lease is left to lapse.
const GIVE_BACK_TRIES: u32 = 3;
/// Between those tries.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(300);
/// All tries together: COMMAND's caller waits for us, and the lease lapses anyway.
const GIVE_BACK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct LeaseArgs {
    /// The pool to lease from.
    #[arg(value_parser = PoolName::parse)]
    pool: PoolName,
    /// The lease's length, instead of the pool's; it is kept alive at a third of it.
    #[arg(long, value_name = "DURATION", value_parser = duration::lifetime)]
    lifetime: Option<Duration>,
    /// A label for who holds it [default: hostname:pid].
    #[arg(long, value_parser = Holder::parse)]
    holder: Option<Holder>,
    /// This token, instead of a random free one.
    #[arg(long, value_parser = TokenValue::parse)]
    token: Option<TokenValue>,
    /// Keep trying for so long when there is no token, instead of exiting with 75 at once.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    wait_for: Option<Duration>,
    /// What to run while holding the token.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// A lease that we hold: who to ask, and under which grant.
#[derive(Debug, Clone)]
struct Lease {
    client: Client,
    pool: PoolName,
    /// Token, fence and the lifetime to ask for.
    request: TokenRequest,
}

/// How giving back went.
#[derive(Debug, PartialEq, Eq)]
enum GivenBack {
    Yes,
    /// The service says that it was not ours any more.
    WasLost,
    /// It could not be told; the lease lapses by itself.
    No,
}

/// Leases a token, runs COMMAND under it and gives the token back.
///
/// # Errors
/// When no lease was to be had or COMMAND could not be started.
pub async fn run(client: Client, args: LeaseArgs) -> Result<ExitCode, Failure> {
    // From here on a signal ends us in order, not in the middle of a grant.
    let mut signals =
        SignalStream::install().map_err(|error| Failure::io("cannot handle signals", &error))?;
    let request = AssignRequest {
        holder: Some(holder(args.holder)),
        lifetime: args.lifetime.map(duration::seconds),
        token: args.token.map(String::from),
        wait_seconds: None,
    };
    let outcome = acquire::acquire(&client, &args.pool, &request, args.wait_for, &mut signals);
    let (acquired, interrupted) = match outcome.await? {
        // A ^C that came with the grant is not COMMAND's: it has not started.
        Outcome::Granted(acquired) => (acquired, signals.pending().await),
        Outcome::Interrupted(signal, Some(acquired)) => (acquired, Some(signal)),
        Outcome::Interrupted(signal, None) => {
            return Ok(ExitCode::from(process::code_of_signal(signal)));
        }
    };
    let Acquired { grant, timing } = acquired;
    let lease = Lease {
        request: TokenRequest {
            token: grant.token,
            fence: Some(grant.fence),
            lifetime: request.lifetime,
        },
        pool: args.pool,
        client,
    };
    if let Some(signal) = interrupted {
        let given_back = tokio::select! {
            given_back = lease.give_back(PARTING_MAX) => given_back,
            _ = signals.recv() => GivenBack::No,
        };
        if given_back == GivenBack::No {
            say_it_lapses(timing);
        }
        return Ok(ExitCode::from(process::code_of_signal(signal)));
    }
    let running = match start(&lease, &args.command) {
        Ok(running) => running,
        Err(failure) => {
            lease.give_back(GIVE_BACK_MAX).await;
            return Err(failure);
        }
    };
    let ended = hold::hold(&lease, timing, running, &mut signals).await;
    Ok(ExitCode::from(conclude(&lease, ended).await))
}

fn start(lease: &Lease, command: &[OsString]) -> Result<Running, Failure> {
    let fence = lease.request.fence.unwrap_or_default().to_string();
    let environment = [
        ("TOKEND_TOKEN", lease.request.token.as_str()),
        ("TOKEND_FENCE", fence.as_str()),
        ("TOKEND_POOL", lease.pool.as_str()),
    ];
    Running::start(command, &environment)
}

/// Gives back what is still ours and decides the exit code.
async fn conclude(lease: &Lease, ended: Ended) -> u8 {
    match ended {
        Ended::ByItself { status, timing } => match lease.give_back(GIVE_BACK_MAX).await {
            GivenBack::Yes => process::code_of(status),
            GivenBack::WasLost => {
                output::say("the lease was lost while the command ran");
                EXIT_LEASE_LOST
            }
            GivenBack::No => {
                say_it_lapses(timing);
                process::code_of(status)
            }
        },
        Ended::ByLoss { still_ours } => {
            if still_ours {
                // Not confirmed in time, but perhaps not lapsed yet: the fence makes sure that
                // this touches our own grant only. One try; it lapses anyway.
                let _ = tokio::time::timeout(GIVE_BACK_MAX, lease.unblock()).await;
            }
            EXIT_LEASE_LOST
        }
    }
}

fn say_it_lapses(timing: Timing) {
    let left = duration::human(timing.remaining(Moment::now()));
    output::say(&format!(
        "could not give the token back; its lease lapses by itself in {left}"
    ));
}

impl Lease {
    async fn unblock(&self) -> Result<(), CallError> {
        let request = TokenRequest {
            lifetime: None,
            ..self.request.clone()
        };
        let answer = self.client.unblock(&self.pool, &request).await;
        answer.map(|_| ())
    }

    async fn give_back(&self, within: Duration) -> GivenBack {
        let tries = tokio::time::timeout(within, self.try_to_give_back());
        tries.await.unwrap_or(GivenBack::No)
    }

    /// Repeats are safe: the fence means that a second unblock can only find the first one done.
    async fn try_to_give_back(&self) -> GivenBack {
        let mut may_be_done = false;
        for attempt in 1..=GIVE_BACK_TRIES {
            match self.unblock().await {
                Ok(()) => return GivenBack::Yes,
                // Our own earlier try, whose answer went missing, is no loss.
                Err(error) if error.says_lost() && may_be_done => return GivenBack::Yes,
                Err(error) if error.says_lost() => return GivenBack::WasLost,
                Err(error) => may_be_done |= error.may_have_run(),
            }
            if attempt < GIVE_BACK_TRIES {
                tokio::time::sleep(GIVE_BACK_PAUSE).await;
            }
        }
        GivenBack::No
    }
}

/// Who we are, for whoever looks at the pool and wonders.
fn holder(given: Option<Holder>) -> String {
    given.map_or_else(
        || {
            let system = rustix::system::uname();
            let host = system.nodename().to_string_lossy().into_owned();
            format!("{host}:{}", std::process::id())
        },
        String::from,
    )
}
